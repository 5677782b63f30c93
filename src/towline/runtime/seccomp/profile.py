"""Reads ``profile.toml`` and ``numbers.txt``: what one machine's kernel may be asked by a container.

The profile is the same for both ways to give it to a runtime: ``oci_section`` for config.json, and
``program.compile_filter`` for a filter that is compiled once. Only the native architecture is allowed.
"""

from __future__ import annotations

import errno
import platform
import tomllib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

ALL_BITS = 0xFFFFFFFF
_OCI_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_COLUMNS = {"x86_64": 1, "aarch64": 2}


class Condition(NamedTuple):
    """The lower 32 bits of an argument, with only the bits of ``mask`` left, equal ``value``."""

    argument: int
    mask: int
    value: int


class Profile(NamedTuple):
    """``allowed`` gives each call the conditions of which one must hold; none: always. ``refused`` gives
    some calls their own errno. ``numbers`` are all calls that are known on ``machine``."""

    machine: str
    allowed: dict[str, tuple[Condition, ...]]
    refused: dict[str, int]
    numbers: dict[str, int]


def native_machine() -> str | None:
    """The architecture of this machine; None where there is no profile for it."""
    machine = platform.machine()
    return machine if machine in _COLUMNS else None


@lru_cache(maxsize=64)
def load_profile(machine: str, capabilities: frozenset[str]) -> Profile:
    """What a container with these capabilities (without ``CAP_``) may ask on such a machine."""
    numbers = _numbers(_COLUMNS[machine])
    allowed: dict[str, tuple[Condition, ...]] = {}
    document = _document()
    for group in document["allow"]:
        if group.get("capability", "") and group["capability"] not in capabilities:
            continue
        conditions = tuple(_conditions(group))
        for name in group["calls"].split():
            if name in numbers:
                # Without a condition it is allowed always, whatever other groups say.
                always = not conditions or allowed.get(name) == ()
                allowed[name] = () if always else (*allowed.get(name, ()), *conditions)
    refused = {
        name: getattr(errno, group["error"])
        for group in document["refuse"]
        for name in group["calls"].split()
        if name in numbers and name not in allowed
    }
    return Profile(machine, allowed, refused, numbers)


def oci_section(profile: Profile) -> dict[str, Any]:
    """``linux.seccomp`` of config.json."""
    always = [name for name, conditions in profile.allowed.items() if not conditions]
    calls: list[dict[str, Any]] = [{"names": always, "action": "SCMP_ACT_ALLOW"}]
    for name, conditions in profile.allowed.items():
        calls += [
            {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [_oci_argument(condition)]}
            for condition in conditions
        ]
    calls += [
        {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number}
        for name, number in profile.refused.items()
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [_OCI_ARCHITECTURES[profile.machine]],
        "syscalls": calls,
    }


def _oci_argument(condition: Condition) -> dict[str, Any]:
    return {
        "index": condition.argument,
        "op": "SCMP_CMP_MASKED_EQ",
        "value": condition.mask,
        "valueTwo": condition.value,
    }


def _conditions(group: dict[str, Any]) -> Iterator[Condition]:
    for when in group.get("when", ()):
        for value in when["is"]:
            yield Condition(when["argument"], when.get("mask", ALL_BITS), value)


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return tomllib.loads(_text("profile.toml"))


def _numbers(column: int) -> dict[str, int]:
    rows = (line.split() for line in _lines(_text("numbers.txt")))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _lines(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def _text(name: str) -> str:
    return (files(__package__) / name).read_text()
