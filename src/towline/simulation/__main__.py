"""``python -m towline.simulation [FIRST [LAST]]``: histories by seed, and the verdict of each that breaks."""

from __future__ import annotations

import asyncio
import sys

from towline.simulation.run import simulate
from towline.store.memory import MemoryStore


def main(arguments: list[str]) -> int:
    first = int(arguments[0]) if arguments else 0
    last = int(arguments[1]) if len(arguments) > 1 else first
    broken = steps = 0
    for seed in range(first, last + 1):
        verdict = asyncio.run(simulate(seed, MemoryStore()))
        steps += verdict.steps
        if verdict.broken or first == last:
            sys.stdout.write(f"{verdict}\n")
        broken += bool(verdict.broken)
    sys.stdout.write(f"{last - first + 1} seeds, {steps} steps, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
