from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import InvalidDocument
from towline.simulation.traces.swf import MAX_PROBLEMS, SwfRecord, parse_swf, read_swf, workload

LOG = """\
; Version: 2.2
;  MaxProcs: 100
; Note: the first of a label stands
; Note: the second does not
; a remark without a label

   15   599850 192180   3477    4     -1    -1    4  53940    -1  1  12  13  14 -1 -1 -1 -1
   16   600022  11940   2488   25  12.75    -1   -1     -1    -1  1  13  13  -1 -1 -1 -1 -1 ; late remark
"""


def record(**fields: int) -> SwfRecord:
    values = dict.fromkeys(SwfRecord._fields, -1) | fields
    return SwfRecord(**values)


def test_a_log_is_its_header_and_its_records() -> None:
    trace = parse_swf(LOG.splitlines())
    assert trace.header["Version"] == "2.2"
    assert trace.header["Note"] == "the first of a label stands"
    assert trace.processors == 100
    first, second = trace.records
    assert (first.line, first.number, first.submitted_s, first.run_s) == (7, 15, 599850, 3477)
    assert (first.requested_processors, first.requested_s) == (4, 53940)
    assert (first.user, first.group, first.executable) == (12, 13, 14)
    assert (second.line, second.cpu_s, second.processors) == (8, 12, 25)


def test_a_header_without_processors_says_nothing() -> None:
    assert parse_swf(["; MaxProcs: many"]).processors is None
    assert parse_swf(["; MaxNodes: 64"]).processors == 64


def test_plain_and_gzipped_files_read_alike(tmp_path: Path) -> None:
    plain, packed = tmp_path / "log.gz", tmp_path / "log.swf"
    plain.write_bytes(LOG.encode("latin-1"))
    packed.write_bytes(gzip.compress(LOG.encode()))
    assert read_swf(plain) == read_swf(packed) == parse_swf(LOG.splitlines())


def test_a_broken_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(LOG.encode())[:-20])
    with pytest.raises(InvalidDocument, match="the compressed file is broken"):
        read_swf(path)


def test_every_broken_line_is_told_with_its_number_and_column() -> None:
    fields = ["1"] * 18
    fields[8] = "12h"
    with pytest.raises(InvalidDocument) as caught:
        parse_swf(["1 2 3", "", " ".join(fields), " ".join(["1"] * 18), " ".join(["inf"] * 18)], "a.swf")
    assert [(problem.line, problem.where) for problem in caught.value.problems] == [
        (1, ""),
        (3, "column 9 (requested_s)"),
        (5, "column 1 (number)"),
    ]
    assert "3 fields, 18 expected" in str(caught.value)
    assert caught.value.source == "a.swf"


def test_the_problems_of_a_file_of_another_kind_are_bounded() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_swf(["name,cpu"] * 1000)
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_a_workload_follows_the_rules_of_the_experiment() -> None:
    records = [
        record(number=1, submitted_s=50, run_s=90, processors=3, requested_processors=4, requested_s=60),
        record(number=2, submitted_s=40, run_s=90, processors=3, requested_processors=0, requested_s=0),
        record(number=3, submitted_s=40, run_s=0, processors=-1, requested_processors=8, requested_s=10),
        record(number=4, submitted_s=1, run_s=-1, processors=3),
        record(number=5, submitted_s=1, run_s=5, processors=0),
        record(number=6, submitted_s=1, run_s=5, requested_processors=9),
    ]
    jobs, skipped = workload(records, processors=8)
    assert skipped == 3
    assert [(job.number, job.run_s, job.requested_s, job.size) for job in jobs] == [
        (2, 90, 90, 3),
        (3, 0, 10, 8),
        (1, 60, 60, 4),
    ]


@given(st.lists(st.lists(st.integers(-1, 10**6), min_size=18, max_size=18), max_size=20), st.integers(1, 99))
def test_a_workload_never_exceeds_its_machine_or_its_requests(rows: list[list[int]], processors: int) -> None:
    trace = parse_swf([" ".join(map(str, row)) for row in rows])
    assert [list(record[1:]) for record in trace.records] == rows
    jobs, skipped = workload(trace.records, processors)
    assert len(jobs) + skipped == len(rows)
    assert all(0 < job.size <= processors and 0 <= job.run_s <= job.requested_s for job in jobs)
    assert jobs == sorted(jobs, key=lambda job: job.submitted_s)
