"""The masker against the plainest thing that does the same, and what it looks for."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towline.logs.masking import Masker, patterns

small = st.text(alphabet="ab", min_size=4, max_size=9).map(str.encode)
text_of_few = st.lists(st.sampled_from([b"a", b"b", b"c", b"abab", b"\n", b"aaaaa"]), max_size=30).map(
    b"".join
)


def masked(found: Sequence[bytes], text: bytes, ended: bool = True) -> bytes:
    """Every place of every pattern, and at the end the longest half of one; joined where they share bytes."""
    spans = {(at, at + len(p)) for p in found for at in range(len(text)) if text.startswith(p, at)}
    for pattern in found if ended else ():
        sizes = range(max(4, (len(pattern) + 1) // 2), len(pattern))
        ends = [size for size in sizes if text.endswith(pattern[:size])]
        spans |= {(len(text) - size, len(text)) for size in ends[-1:]}
    shown, at = b"", 0
    for begin, end in sorted(spans):
        if begin >= at:
            shown += text[at:begin] + b"***"
        at = max(at, end)
    return shown + text[at:]


def cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in itertools.pairwise(ends)] or [b""]


@given(st.lists(small, min_size=1, max_size=4), text_of_few, st.lists(st.integers(0, 200), max_size=6))
@example([b"abab"], b"abababx", [2, 4, 6])
@example([b"aaaa"], b"aaaaaaaaab", [1, 5])
@example([b"abcde", b"cdefgh"], b"abcdefg", [5])
def test_it_gives_what_the_plain_one_gives_however_the_text_is_cut(
    found: list[bytes], text: bytes, places: list[int]
) -> None:
    masker = Masker(found)
    shown = b"".join(masker.feed(piece) for piece in cut(text, places)) + masker.finish()
    assert shown == masked(found, text)


@given(st.lists(small, min_size=1, max_size=4), text_of_few)
def test_it_holds_back_only_what_could_be_a_beginning(found: list[bytes], text: bytes) -> None:
    """Byte by byte: what was shown by then is the same as of all at once, and never taken back."""
    whole, shown = Masker(found), b""
    for count in range(len(text)):
        shown += whole.feed(text[count : count + 1])
        other = Masker(found)
        assert other.feed(text[: count + 1]) == shown
        assert (other.held, other.covered) == (whole.held, whole.covered)
        assert not whole.held or any(p.startswith(whole.held) and p != whole.held for p in found)


@given(st.lists(small, min_size=1, max_size=3), text_of_few, text_of_few)
def test_another_one_goes_on_from_what_was_held(found: list[bytes], before: bytes, after: bytes) -> None:
    first = Masker(found)
    shown = first.feed(before)
    second = Masker(found, first.covered)
    shown += second.feed(first.held) + second.feed(after) + second.finish()
    assert shown == masked(found, before + after)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=20).filter(lambda v: len(v.strip()) >= 4))
def test_binary_output_around_a_binary_value_stays(noise: bytes, value: bytes) -> None:
    found = patterns([value])
    masker = Masker(found)
    shown = masker.feed(noise + value + noise) + masker.finish()
    assert shown == masked(found, noise + value + noise)


VALUE = b'pa"(ss w\xc3\xb6rd/?+~\xc3\xbf\xc3\xbf'


@pytest.mark.parametrize(
    "shown",
    [
        VALUE,
        VALUE.hex().encode(),
        VALUE.hex().upper().encode(),
        quote(VALUE, safe="").encode(),
        quote(VALUE).encode(),
        quote_plus(VALUE).encode(),
        quote(VALUE, safe="!'()*").encode(),
        json.dumps(VALUE.decode()).encode(),
        json.dumps(VALUE.decode(), ensure_ascii=False).encode(),
        *(base64.b64encode(before + VALUE + b"!") for before in (b"", b"u", b"u:", b"ab:")),
        *(base64.urlsafe_b64encode(before + VALUE) for before in (b"", b"u", b"u:")),
    ],
)
def test_encodings_are_masked_too(shown: bytes) -> None:
    masker = Masker(patterns([VALUE + b"\n"]))
    out = masker.feed(b"<" + shown + b">") + masker.finish()
    assert out.startswith(b"<")
    assert out.endswith(b">")
    assert out.count(b"***") == 1
    assert len(out) <= 13, "no more of it is left than the characters that others have a part in"


def test_a_value_of_several_lines_is_masked_line_by_line() -> None:
    key = b"-----BEGIN KEY-----\nc2VjcmV0LWtleQ\n  tail-of-it\n}\n-----END KEY-----\n"
    masker = Masker(patterns([key]))
    text = b"\r\n".join(b"> " + line for line in key.splitlines()) + b"\r\n"
    assert masker.feed(text) + masker.finish() == b"> ***\r\n> ***\r\n>   ***\r\n> }\r\n> ***\r\n"
    assert masker.feed(b"[" + key + b"]") == b"[***\n]"


def test_values_that_are_too_short_or_long_for_more() -> None:
    assert patterns([b"", b"abc", b" abc\n", b"\n\n\n\n\n"]) == ()
    for large in (b"0123456789 " * 2000, b"0123456789\n" * 129):
        assert patterns([large]) == (large.strip(),)


def test_a_flood_of_the_value_is_masked_in_a_moment() -> None:
    """What overlaps itself, and what begins again and again, costs no more than its length."""
    masker = Masker([b"a" * 5000, b"b" * 4999 + b"c"])
    assert masker.feed(b"a" * 60_000) == b"***"
    assert len(masker.held) == 4999
    assert masker.feed(b"b" * 60_000) == b"b" * (60_000 - 4999)
