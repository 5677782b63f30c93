"""Values that must not be shown, taken out of a stream that comes in pieces.

What is masked of a value: itself without white space at its ends; each of its lines of 8 bytes and more,
where it has several; and its encodings: base64 (also URL-safe, and also inside of a longer text that
was encoded), hexadecimal, percent-encoding and the escapes of JSON. Values of more than 16 KiB or 128
lines are masked as a whole only, since each pattern costs a search of all output; and those of fewer than
4 bytes not at all: they would stand everywhere.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Iterator

from towline.model.names import MASKED_BYTES

MASK = b"***"
_LINE_BYTES = 8
_ENCODED_BYTES = 6
_WHOLE_ONLY_BYTES = 16 << 10
_WHOLE_ONLY_LINES = 128
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PERCENT = (
    (_UNRESERVED, b"%20"),
    (_UNRESERVED | set(b"/"), b"%20"),
    (_UNRESERVED | set(b"!'()*"), b"%20"),
    (_UNRESERVED, b"+"),
)
"""Ways of percent-encoding: what stays as it is (a path keeps ``/``, encodeURIComponent of JavaScript keeps
more) and what stands for a space (``+`` in forms)."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_BASE64_BEGINS = (0, 2, 3)
"""By the bytes before a value, modulo 3: the first character that has bits of the value alone."""


def patterns(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """What a ``Masker`` has to look for so that none of the values is shown."""
    found: dict[bytes, None] = {}
    for value in values:
        core = value.strip()
        if len(core) < MASKED_BYTES:
            continue
        found[core] = None
        lines = core.splitlines()
        if len(core) <= _WHOLE_ONLY_BYTES and len(lines) <= _WHOLE_ONLY_LINES:
            found.update(dict.fromkeys(line for text in lines if len(line := text.strip()) >= _LINE_BYTES))
            found.update(dict.fromkeys(text for text in _encodings(core) if len(text) >= _ENCODED_BYTES))
    return tuple(found)


def _encodings(value: bytes) -> Iterator[bytes]:
    for before, begin in enumerate(_BASE64_BEGINS):
        text = binascii.b2a_base64(bytes(before) + value, newline=False)
        inner = text[begin : (before + len(value)) * 8 // 6]
        yield from (inner, inner.translate(_URL_SAFE))
    text = value.hex().encode()
    yield from (text, text.upper())
    for kept, space in _PERCENT:
        text = b"".join(b"%c" % byte if byte in kept else b"%%%02X" % byte for byte in value)
        yield text.replace(b"%20", space)
    try:
        plain = value.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        yield json.dumps(plain, ensure_ascii=ascii_only)[1:-1].encode()


class Masker:
    """Gives ``***`` in place of each run of bytes that belong to patterns, which may overlap; patterns
    have 4 bytes or more.

    What it has given after some input is the same however the input was cut. It holds back no more
    than could be the beginning of a pattern: ``held`` are the last bytes of its input, and of those
    the first ``covered`` stand behind a ``***`` that it has given. Another one goes on from these two.
    """

    def __init__(self, patterns: Iterable[bytes], covered: int = 0) -> None:
        self._patterns = tuple(patterns)
        self.held = b""
        self.covered = covered

    def feed(self, data: bytes) -> bytes:
        """More input; returns what can be shown by now."""
        text = self.held + data
        keep = len(text)
        for pattern in self._patterns:
            keep = min(keep, _begins(text, pattern, keep))
        return self._give(text, keep, _occurrences(text, self._patterns))

    def finish(self) -> bytes:
        """Nothing follows: what was held back, in which half a pattern or more is masked as well."""
        text = self.held
        spans = _occurrences(text, self._patterns)
        for pattern in self._patterns:
            begin = _begins(text, pattern, len(text))
            if len(text) - begin >= max(MASKED_BYTES, (len(pattern) + 1) // 2):
                spans.append((begin, len(text)))
        return self._give(text, len(text), spans)

    def _give(self, text: bytes, keep: int, spans: list[tuple[int, int]]) -> bytes:
        """``text`` up to ``keep``, with the runs that begin there masked; the rest is held."""
        at = self.covered
        self.held = text[keep:]
        if not spans and at == 0:
            return text[:keep]
        parts: list[bytes] = []
        for begin, end in _runs(spans, self.covered):
            if begin == 0 and self.covered:
                at = end
            elif begin < keep:
                parts += (text[at:begin], MASK)
                at = end
        parts.append(text[at:keep])
        self.covered = max(0, at - keep)
        return b"".join(parts)


def _occurrences(text: bytes, patterns: tuple[bytes, ...]) -> list[tuple[int, int]]:
    """(begin, end) of each; those of one pattern that overlap are one."""
    spans: list[tuple[int, int]] = []
    for pattern in patterns:
        size = len(pattern)
        begin = text.find(pattern)
        while begin >= 0:
            last = begin
            while (inside := text.rfind(pattern, last + 1, last + 2 * size - 1)) >= 0:
                last = inside
            spans.append((begin, last + size))
            begin = text.find(pattern, last + size)
    return spans


def _runs(spans: list[tuple[int, int]], covered: int) -> list[tuple[int, int]]:
    """In order, with those that share bytes joined; ``covered`` bytes at the beginning are a run."""
    runs: list[tuple[int, int]] = [(0, covered)] if covered else []
    for begin, end in sorted(spans):
        if runs and begin < runs[-1][1]:
            runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
        else:
            runs.append((begin, end))
    return runs


def _begins(text: bytes, pattern: bytes, before: int) -> int:
    """Where the longest end of ``text`` begins that could be the beginning of the pattern, if that is
    before ``before``; else any number from ``before`` up."""
    least = max(0, len(text) - len(pattern) + 1)
    if least >= before:
        return before
    view = memoryview(text)
    head = pattern[:MASKED_BYTES]
    at = text.find(head, least)
    while 0 <= at < before:
        if pattern.startswith(view[at:]):  # pyright: ignore[reportArgumentType] - any buffer will do
            return at
        at = text.find(head, at + 1)
    for count in range(min(MASKED_BYTES - 1, len(text)), 0, -1):
        if text.endswith(pattern[:count]):
            return len(text) - count
    return before
