"""What queues may look like: the rules that a new or changed queue has to keep, each with its remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from towline.core.queues.amounts import NAMES, shown
from towline.core.queues.tree import DEFAULT, Queue, QueueTree
from towline.core.rows import QueueRow
from towline.errors import NotFound, RequestError
from towline.model.job import MAX_ELEMENTS

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")
MOST_QUEUES = 10_000
MOST_LEVELS = 16
MOST_WEIGHT_MILLI = 1_000_000_000
LARGEST_AMOUNT = 2**60


def find(tree: QueueTree, name: str) -> Queue:
    """The queue of a name. Raises NotFound, with the names that come near."""
    queue = tree.queues.get(name)
    if queue is None:
        raise NotFound(f"there is no queue {name!r}: {_instead(tree, name)}")
    return queue


def _instead(tree: QueueTree, name: str) -> str:
    near = get_close_matches(name, tree.queues, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"make it with `tow queue create {name}`, or see what there is with `tow queue ls`"


def unknown(tree: QueueTree, name: str) -> tuple[str, str]:
    """(what is wrong, what to write instead) of a queue that takes no jobs; ("", "") of one that does."""
    queue = tree.queues.get(name)
    if queue is None:
        return f"there is no queue {name!r}", _instead(tree, name).rstrip("?")
    if queue.children:
        names = [child.name for child in queue.children]
        few = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        return f"queue {name!r} has queues below it, which take the jobs", f"name one of them: {few}"
    return "", ""


def check(tree: QueueTree, row: QueueRow) -> None:
    """Whether a queue may have this row. Raises RequestError that names the field, value and remedy."""
    _check_name(tree, row)
    _check_parent(tree, row)
    _check_numbers(row)
    _check_amounts(tree, row)


def _refuse(row: QueueRow, field: str, problem: str, remedy: str) -> RequestError:
    return RequestError(f"queue {row.name!r}: {field} {problem}: {remedy}")


def _check_name(tree: QueueTree, row: QueueRow) -> None:
    if not NAME.match(row.name):
        raise RequestError(
            f"queue name {row.name!r}: write 1 to 63 lower-case letters, digits, '.', '_' or '-', "
            "with a letter or digit at both ends"
        )
    if row.name not in tree.queues and len(tree.queues) >= MOST_QUEUES:
        raise RequestError(f"a pool has at most {MOST_QUEUES} queues: delete one with `tow queue rm`")


def _check_parent(tree: QueueTree, row: QueueRow) -> None:
    if row.parent is None:
        return
    if row.name == DEFAULT:
        raise _refuse(
            row, f"parent {row.parent!r}", "is not possible", "default stays at the top: leave it out"
        )
    parent = tree.queues.get(row.parent)
    if parent is None:
        raise _refuse(row, f"parent {row.parent!r}", "does not exist", _instead(tree, row.parent))
    if any(above.name == row.name for above in parent.path):
        chain = " below ".join(above.name for above in parent.path)
        raise _refuse(
            row, f"parent {row.parent!r}", f"makes a circle ({chain})", "name a queue that is not below it"
        )
    if parent.name == DEFAULT:
        raise _refuse(row, "parent 'default'", "takes jobs, not queues", "leave it out, or name another")
    if parent.jobs and all(child.name != row.name for child in parent.children):
        raise _refuse(
            row,
            f"parent {row.parent!r}",
            f"has {parent.jobs} unfinished jobs of its own",
            "name another parent, or wait until they have ended (a queue with queues below it takes no jobs)",
        )
    deepest = len(parent.path) + _height(tree.queues.get(row.name))
    if deepest > MOST_LEVELS:
        raise _refuse(row, f"parent {row.parent!r}", f"makes {deepest} levels", f"use at most {MOST_LEVELS}")


def _height(queue: Queue | None) -> int:
    return 1 if queue is None else 1 + max((_height(child) for child in queue.children), default=0)


def _check_numbers(row: QueueRow) -> None:
    if not 1 <= row.weight_milli <= MOST_WEIGHT_MILLI:
        raise _refuse(row, f"weight {row.weight_milli / 1000:g}", "is out of range", "write 0.001 to 1000000")
    if not 0 <= row.max_priority <= 100:
        raise _refuse(row, f"max_priority {row.max_priority}", "is out of range", "write 0 to 100")
    if row.max_active is not None and not 0 <= row.max_active <= MAX_ELEMENTS:
        raise _refuse(row, f"max_active {row.max_active}", "is out of range", f"write 0 to {MAX_ELEMENTS}")
    for field, amounts in (("guaranteed", row.guaranteed), ("maximum", row.maximum)):
        for name, amount in amounts.items():
            if name not in NAMES:
                known = ", ".join(NAMES)
                raise _refuse(row, f"{field}.{name}", "is no resource of a queue", f"write one of {known}")
            if not 0 <= amount <= LARGEST_AMOUNT:
                raise _refuse(row, f"{field}.{name} {amount}", "is out of range", "write 0 or more")


def _check_amounts(tree: QueueTree, row: QueueRow) -> None:
    for name, amount in row.guaranteed.items():
        maximum = row.maximum.get(name)
        if maximum is not None and maximum < amount:
            raise _refuse(
                row,
                f"maximum.{name} {_said(name, maximum)}",
                f"is below its guaranteed {_said(name, amount)}",
                "raise maximum or lower guaranteed",
            )
    if row.parent is not None:
        parent = tree.queues[row.parent]
        others = [child.row for child in parent.children if child.name != row.name]
        _check_sum(row, parent.row, [*others, row])
    queue = tree.queues.get(row.name)
    if queue is not None and queue.children:
        _check_sum(row, row, [child.row for child in queue.children])


def _check_sum(row: QueueRow, parent: QueueRow, children: list[QueueRow]) -> None:
    """What is promised to the children has to be promised to their parent."""
    for name in NAMES:
        promised = sum(child.guaranteed.get(name, 0) for child in children)
        has = parent.guaranteed.get(name, 0)
        if promised > has:
            of = f"guaranteed.{name} of the queues below {parent.name!r} is {_said(name, promised)} in all"
            raise RequestError(
                f"queue {row.name!r}: {of}, and {parent.name!r} itself is guaranteed {_said(name, has)}: "
                f"raise guaranteed of {parent.name!r} first, or give less"
            )


def _said(name: str, amount: int) -> str:
    return shown(NAMES.index(name), amount)


def check_deletion(queue: Queue) -> None:
    """Whether a queue may go. Raises RequestError."""
    name = queue.name
    if name == DEFAULT:
        raise RequestError("queue 'default' stays: jobs that name no queue go there")
    if queue.children:
        below = ", ".join(child.name for child in queue.children[:5])
        raise RequestError(f"queue {name!r} has queues below it ({below}): delete those first")
    if queue.jobs:
        raise RequestError(
            f"queue {name!r} has {queue.jobs} unfinished jobs: wait for their end or cancel them "
            "(`tow jobs --state running` lists jobs)"
        )


def merged(before: Mapping[str, int], given: Mapping[str, int | None]) -> dict[str, int]:
    """A row's amounts with others put in or, where they are None, taken away; in the fixed order of
    resources, so that equal rows are equal bytes."""
    both = {**before, **given}
    names = [*(name for name in NAMES if name in both), *sorted(both.keys() - set(NAMES))]
    return {name: amount for name in names if (amount := both[name]) is not None}
