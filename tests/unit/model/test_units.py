"""Quantities as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.model.units import (
    MAX_BYTES,
    MAX_CPU_MILLI,
    MAX_DURATION_MS,
    human_bytes,
    parse_bytes,
    parse_cpu,
    parse_duration,
    show_bytes,
    show_cpu,
    show_duration,
)


@pytest.mark.parametrize(
    ("value", "milli"), [(1, 1000), (0.5, 500), ("500m", 500), ("0.001", 1), ("2", 2000), (0.1, 100)]
)
def test_cpus(value, milli):
    assert parse_cpu(value) == milli


@pytest.mark.parametrize(
    ("value", "count"),
    [(64, 64), ("64Mi", 2**26), ("1.5G", 1_500_000_000), ("64 MiB", 2**26), ("1k", 1000), ("2KB", 2000)],
)
def test_sizes(value, count):
    assert parse_bytes(value) == count


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (90, 90_000),
        ("2m", 120_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        (0.5, 500),
        ("1.5s", 1500),
        ("7", 7000),
    ],
)
def test_times(value, milliseconds):
    assert parse_duration(value) == milliseconds


WRONG = [
    None,
    True,
    [],
    {},
    "",
    "x",
    -1,
    0,
    float("nan"),
    float("inf"),
    "1e999999999",
    "٣",
    "--1",
    "1 2",
    10**40,
]


@pytest.mark.parametrize("parse", [parse_cpu, parse_bytes, parse_duration])
@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_quantity_gets_a_sentence(parse, value):
    with pytest.raises(ValueError, match=r"^(a |cpu )"):
        parse(value)


@pytest.mark.parametrize("parse", [parse_cpu, parse_bytes, parse_duration])
def test_immense_numbers_get_a_sentence_too(parse):
    for immense in (10**5000, -(10**5000), 1e308):
        with pytest.raises(ValueError, match=r"far smaller|above 0|at least"):
            parse(immense)


@given(st.text(max_size=12) | st.floats() | st.integers() | st.from_regex(r"[0-9.]{1,6}[a-zA-Z]{0,3}"))
def test_nothing_raises_otherwise(value):
    for parse in (parse_cpu, parse_bytes, parse_duration):
        try:
            assert parse(value) >= 1
        except ValueError as error:
            assert str(error)


@given(st.integers(1, MAX_CPU_MILLI), st.integers(1, MAX_BYTES), st.integers(1, MAX_DURATION_MS))
def test_what_is_shown_is_read_back(milli, count, milliseconds):
    assert parse_cpu(show_cpu(milli)) == milli
    assert parse_bytes(show_bytes(count)) == count
    assert parse_duration(show_duration(milliseconds)) == milliseconds


def test_sizes_in_sentences():
    assert [human_bytes(count) for count in (512, 2**26, 25_125_558_681)] == ["512 B", "64 MiB", "23.4 GiB"]
