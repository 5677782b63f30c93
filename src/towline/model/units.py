"""Quantities: integer milli-CPUs, bytes and milliseconds, and how people write them.

A field whose type is ``Annotated[int, CPU]`` is named with its unit in Python (``cpu_milli``)
and without in a job file (``cpu``). Parsers raise ValueError with a sentence that says what to
write instead; they take what YAML gives: int, float or str.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")
_PLAIN_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\s*\Z", re.ASCII)
_LARGEST = 10**30
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")

_BYTE_UNITS = {
    "": 1,
    "B": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "k": 10**3,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "kB": 10**3,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_EPOCH = datetime(1970, 1, 1)
_DURATION_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

MAX_CPU_MILLI = 1_000_000 * 1_000
MAX_BYTES = 2**60
MAX_GPUS = 1024
MAX_DURATION_MS = 3650 * 86_400_000
LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, in unix ms: what is later cannot be written as a date."""


class Quantity(NamedTuple):
    """Marks an integer field: the suffix its Python name has, its parser and its printer."""

    suffix: str
    parse: Callable[[object], int]
    show: Callable[[int], str | int | float]
    example: str


def _decimal(value: object, what: str, example: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} is a number such as {example}")
    if isinstance(value, str):
        if not _PLAIN_NUMBER.match(value):
            raise ValueError(f"{what} is a number such as {example}")
        return Decimal(value.strip())
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} is a finite number such as {example}")
    if abs(value) > _LARGEST:
        raise ValueError(f"{what} is far smaller, such as {example}")
    return Decimal(str(value))


def parse_cpu(value: object) -> int:
    """``0.5``, ``2`` or ``500m`` as milli-CPUs; at least one milli-CPU."""
    example = "0.5 or 500m"
    if isinstance(value, str) and value.strip().endswith("m"):
        milli = _decimal(value.strip()[:-1], "cpu", example)
    else:
        milli = _decimal(value, "cpu", example) * 1000
    if milli <= 0:
        raise ValueError(f"cpu is above 0, such as {example}")
    if milli != milli.to_integral_value():
        raise ValueError("cpu has at most three decimals: the smallest share is 0.001")
    if milli > MAX_CPU_MILLI:
        raise ValueError("cpu is at most 1000000")
    return int(milli)


def show_cpu(milli: int) -> int | float:
    return milli // 1000 if milli % 1000 == 0 else milli / 1000


def parse_gpu(value: object) -> int:
    """``2`` or ``0.5`` devices in thousandths: whole devices, or a share of one."""
    example = "1 or 0.5"
    milli = _decimal(value, "gpu", example) * 1000
    if milli <= 0:
        raise ValueError(f"gpu is above 0, such as {example}")
    if milli != milli.to_integral_value():
        raise ValueError("gpu has at most three decimals: the smallest share is 0.001")
    if milli > 1000 and milli % 1000 != 0:
        raise ValueError(
            f"a share is one of a single device: write {int(milli) // 1000} or a share such as 0.5"
        )
    if milli > MAX_GPUS * 1000:
        raise ValueError(f"gpu is at most {MAX_GPUS}")
    return int(milli)


def parse_bytes(value: object) -> int:
    """``64Mi``, ``1.5G`` or a plain number of bytes; at least one byte."""
    example = "64Mi, 1.5G or a number of bytes"
    unit = 1
    number: object = value
    if isinstance(value, str):
        match = _NUMBER_AND_UNIT.match(value)
        if match is None or match[2] not in _BYTE_UNITS:
            raise ValueError(f"a size is {example}")
        number, unit = match[1], _BYTE_UNITS[match[2]]
    count = _decimal(number, "a size", example) * unit
    if count < 1:
        raise ValueError(f"a size is above 0, such as {example}")
    if count > MAX_BYTES:
        raise ValueError("a size is at most 1024Pi")
    return int(count)


def show_bytes(count: int) -> str | int:
    for name in ("Ti", "Gi", "Mi", "Ki"):
        unit = _BYTE_UNITS[name]
        if count >= unit and count % unit == 0:
            return f"{count // unit}{name}"
    return count


def human_bytes(count: int) -> str:
    """For sentences: ``23.4 GiB``, ``64 MiB``, ``512 B``."""
    for name in ("TiB", "GiB", "MiB", "KiB"):
        unit = _BYTE_UNITS[name]
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} B"


def parse_duration(value: object) -> int:
    """``90`` (seconds), ``2m``, ``1h30m`` or ``250ms`` as milliseconds; at least one millisecond."""
    example = "30s, 2m, 1h30m or a number of seconds"
    if isinstance(value, str) and not _PLAIN_NUMBER.match(value):
        text = value.strip()
        parts = _DURATION_PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"a time is {example}")
        milliseconds = sum((Decimal(number) * _DURATION_UNITS_MS[unit] for number, unit in parts), Decimal(0))
    else:
        milliseconds = _decimal(value, "a time", example) * 1000
    if milliseconds < 1:
        raise ValueError(f"a time is at least 1ms, such as {example}")
    if milliseconds > MAX_DURATION_MS:
        raise ValueError("a time is at most 3650d")
    return int(milliseconds)


def show_duration(milliseconds: int) -> str:
    left, text = milliseconds, ""
    for name in ("d", "h", "m", "s", "ms"):
        unit = _DURATION_UNITS_MS[name]
        if left >= unit:
            text += f"{left // unit}{name}"
            left %= unit
    return text or "0s"


CPU = Quantity("_milli", parse_cpu, show_cpu, "0.5")
BYTES = Quantity("_bytes", parse_bytes, show_bytes, "64Mi")
DURATION = Quantity("_ms", parse_duration, show_duration, "2m")


# --- times, of unix milliseconds ----------------------------------------------------------------------
def rfc3339(at_ms: int) -> str:
    """``2026-01-31T12:00:00.123Z``."""
    second, milliseconds = divmod(at_ms, 1000)
    return f"{_second(second)}.{milliseconds:03d}Z"


def rfc3339_or_null(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


def moment(at_ms: int) -> str:
    """To the second, for sentences: ``2026-01-31T12:00:00Z``."""
    return f"{_second(at_ms // 1000)}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    """Cached, since what is shown together happened at nearly the same time."""
    return (_EPOCH + timedelta(seconds=second)).isoformat()
