"""Outcomes of replays in a file, a line each: a long run may be interrupted, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from towline.simulation.traces.inflation import Outcome


class Line(Struct, kw_only=True):
    trace: str
    seed: int
    policy: str
    allocation: dict[int, float]
    failed: int
    pods: int


class Kept:
    """``path``: None to keep nothing. Of another state of the source the file is to be another one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[tuple[str, int, str], Line] = {}
        if path is not None and path.exists():
            for line in msgspec.json.Decoder(Line).decode_lines(path.read_bytes()):
                self._lines[(line.trace, line.seed, line.policy)] = line

    def find(self, trace: str, seed: int, policy: str) -> Outcome | None:
        line = self._lines.get((trace, seed, policy))
        return None if line is None else Outcome(line.allocation, line.failed, line.pods)

    def add(self, trace: str, seed: int, policy: str, outcome: Outcome) -> None:
        if self._path is None:
            return
        line = Line(trace=trace, seed=seed, policy=policy, **outcome._asdict())
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
