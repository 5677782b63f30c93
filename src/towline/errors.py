"""The exception tree, grouped by what the caller should do.

    TowlineError
    ├── RequestError        fix the request, then send it again       (exit status 2, HTTP 4xx)
    │   ├── InvalidDocument     a job file that does not validate: all its problems at once
    │   ├── NotFound            no such job, task, element or node
    │   ├── Unauthenticated     no token, or one that is worth nothing
    │   ├── Forbidden           the caller's role does not allow it
    │   └── Conflict            it does not go with what is there: a used idempotency key, an ended job
    │       └── Outdated            the pool has gone on since the request was prepared
    ├── RetryError          send the same request again, unchanged    (exit status 3, HTTP 503)
    │   ├── Unavailable         no server, or no leader, answers now
    │   │   └── NoNode              no node of the pool is connected now
    │   └── StaleTerm           another leader took over: the commit was fenced off
    └── OperatorError       a person has to look at the machine       (exit status 1)
        ├── WrongSetting        a setting that is wrong, said with what to write instead (exit status 2)
        ├── StoreError          the store cannot be read or written
        │   ├── StoreAway           it cannot be reached now, and may be there in a moment
        │   ├── WrongStore          what a setting says of it is refused there (a WrongSetting too)
        │   └── Unstorable          it never takes a value of this change; all others it does
        ├── Damaged             what was kept is not what was given to be kept
        └── NodeError           the node lacks something it needs (runtime, rights, space)

A broken invariant is none of these: it is a bug, raised as AssertionError, and crashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EDQUOT, ENOSPC
from typing import NamedTuple

NO_ROOM = (ENOSPC, EDQUOT)
"""The ``errno`` of an OSError for lack of space, of the disk or of somebody's quota."""


class Problem(NamedTuple):
    """One thing that is wrong with a request.

    ``where`` is the path of the field (``tasks.split.resources.memory``), ``line`` its line in
    the file (1-based; None where there is no file), ``remedy`` what to write instead.
    """

    where: str
    message: str
    remedy: str = ""
    line: int | None = None

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line is not None else ""
        where = f"{self.where}: " if self.where else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{line}{where}{self.message}{remedy}"


class TowlineError(Exception):
    """Whatever Towline expects may go wrong."""


class RequestError(TowlineError):
    """The request is wrong; the same request will be refused again."""


class InvalidDocument(RequestError):
    """A job file that does not validate. ``problems`` holds everything found, in file order."""

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__("\n".join(str(p) for p in self.problems))


class NotFound(RequestError):
    """No such job, task, element or node."""


class Unauthenticated(RequestError):
    """The request shows no token, or one that is unknown, taken back or expired."""


class Forbidden(RequestError):
    """Who asks may not do this."""


class Conflict(RequestError):
    """The request does not go with what is there, such as an idempotency key that was used before."""


class Outdated(Conflict):
    """What the request was prepared from is older than what the pool knows: prepare it again."""


class RetryError(TowlineError):
    """Nothing is wrong with the request; it may or may not have taken effect: repeat it with its key."""


class Unavailable(RetryError):
    """No server or no leader answers at the moment."""


class NoNode(Unavailable):
    """No node of the pool is connected at the moment."""


class StaleTerm(RetryError):
    """The pool's row has another term or commit number: this leader is not the leader any more."""


class OperatorError(TowlineError):
    """A person has to look at the machine."""


class WrongSetting(OperatorError):
    """A setting of a file, a variable or a flag is wrong, or does not go with another one."""


class StoreError(OperatorError):
    """The store cannot be read or written."""


class StoreAway(StoreError):
    """The store cannot be reached, or takes nobody in yet."""


class WrongStore(StoreError, WrongSetting):
    """There is a store, but not one to work with: its login, its name or its schema is another one."""


class Unstorable(StoreError):
    """The store never takes a value of this change, however often it is tried. Nothing of it was written."""


class Damaged(OperatorError):
    """What was kept is gone, or has another content than what was given to be kept."""


class NodeError(OperatorError):
    """The node lacks something that it needs."""
