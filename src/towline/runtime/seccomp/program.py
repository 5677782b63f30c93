"""Compiles a profile into a program of the kernel's classic BPF, as seccomp(2) takes it.

The kernel runs it at every system call, with a copy of the call's number and arguments. Calls that
need no look at their arguments are found by halving the table, so that a call costs about nine steps;
since Linux 5.11 the kernel remembers which of them are always allowed and does not even run it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import NamedTuple

from towline.runtime.seccomp.profile import ALL_BITS, Condition, Profile

_LOAD, _AND = 0x20, 0x54  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K
_JUMP, _EQUAL, _GREATER_EQUAL = 0x05, 0x15, 0x35  # BPF_JMP with BPF_JA, BPF_JEQ, BPF_JGE, all BPF_K
_RETURN = 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_MOST_INSTRUCTIONS = 4096
_FARTHEST = 255


class Step(NamedTuple):
    """One instruction; ``yes`` and ``no`` are how many to leave out after a comparison."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


class _Range(NamedTuple):
    """What happens for numbers from ``first`` up to the next range's."""

    first: int
    steps: tuple[Step, ...]


def compile_filter(profile: Profile) -> bytes:
    """The program, eight bytes an instruction, in this machine's byte order."""
    steps = [
        Step(_LOAD, _ARCHITECTURE_AT),
        Step(_EQUAL, _ARCHITECTURES[profile.machine], yes=1),
        Step(_RETURN, _KILL_PROCESS),  # another architecture's calls have other numbers
        Step(_LOAD, _NUMBER_AT),
        *_tree(_ranges(profile)),
    ]
    if len(steps) > _MOST_INSTRUCTIONS:
        raise ValueError(f"the seccomp filter has {len(steps)} instructions, at most {_MOST_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", step.code, step.yes, step.no, step.value) for step in steps)


def _ranges(profile: Profile) -> list[_Range]:
    """All numbers, those of the same outcome beside each other taken together. What is beyond the
    table (x86's other calling convention too) is not known: ENOSYS."""
    names = {number: name for name, number in profile.numbers.items()}
    found: list[_Range] = []
    for number in range(max(names) + 2):
        steps = _outcome(profile, names.get(number))
        if not found or found[-1].steps != steps:
            found.append(_Range(number, steps))
    return found


def _outcome(profile: Profile, name: str | None) -> tuple[Step, ...]:
    if name is None:
        return (_error(errno.ENOSYS),)
    if name in profile.refused:
        return (_error(profile.refused[name]),)
    conditions = profile.allowed.get(name)
    if conditions is None:
        return (_error(errno.EPERM),)
    return (*_alternatives(conditions), _error(errno.EPERM)) if conditions else (Step(_RETURN, _ALLOW),)


def _alternatives(conditions: tuple[Condition, ...]) -> Iterator[Step]:
    for condition in conditions:
        yield Step(_LOAD, _ARGUMENTS_AT + 8 * condition.argument)
        if condition.mask != ALL_BITS:
            yield Step(_AND, condition.mask)
        yield Step(_EQUAL, condition.value, no=1)
        yield Step(_RETURN, _ALLOW)


def _error(number: int) -> Step:
    return Step(_RETURN, _ERRNO | number)


def _tree(ranges: list[_Range]) -> list[Step]:
    """Find the number's range by halving; a jump that is too far for a comparison takes a step of its own."""
    if len(ranges) == 1:
        return list(ranges[0].steps)
    middle = len(ranges) // 2
    lower, upper = _tree(ranges[:middle]), _tree(ranges[middle:])
    first = ranges[middle].first
    if len(lower) <= _FARTHEST:
        return [Step(_GREATER_EQUAL, first, yes=len(lower)), *lower, *upper]
    return [Step(_GREATER_EQUAL, first, no=1), Step(_JUMP, len(lower)), *lower, *upper]
