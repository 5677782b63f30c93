"""What a task does that tells of itself: a line for each moment that it is alive, in a file of its attempt.

begun
15023.120       CLOCK_BOOTTIME in seconds, again and again
exit 7 12       its exit code, and how many lines it has printed, each with its number from 0 on
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

LIVES = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder, code, every, lasts = sys.argv[1], *map(float, sys.argv[2:])
name = ".".join(os.environ[key] for key in ("TOW_TASK", "TOW_INDEX", "TOW_ATTEMPT"))
file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
ends = [f"{folder}/end", f"{folder}/{os.environ['TOW_TASK']}.end", f"{folder}/{name}.end"]
os.write(file, b"begun\\n")
lines, began, printed = 0, now(), 0.0
while not any(map(os.path.exists, ends)) and not 0 < lasts <= now() - began:
    os.write(file, b"%.3f\\n" % now())
    if now() - printed >= 0.1:
        os.write(1, b"%d\\n" % lines)
        lines, printed = lines + 1, now()
    time.sleep(every)
code = 7 if os.path.exists(ends[2]) else int(code)
os.write(file, b"exit %d %d\\n" % (code, lines))
os._exit(code)
"""
"""FOLDER CODE EVERY_S LASTS_S. SIGTERM does not end it, but a file does (``Stamps.end``), or its time where
that is not 0."""


class Life(NamedTuple):
    """``code`` is None where it did not end by itself."""

    begun: int
    stamps: list[float]
    code: int | None
    lines: int


def read_life(path: Path) -> Life:
    """The last line may be half written by a process that was killed."""
    begun, stamps, code, printed = 0, [], None, 0
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        if line == "begun":
            begun += 1
        elif line.startswith("exit "):
            code, printed = map(int, line.split()[1:])
        else:
            stamps.append(float(line))
    return Life(begun, stamps, code, printed)
