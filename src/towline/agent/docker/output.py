"""From the Engine's log into the attempt's files, each byte once.

An Engine's log is read in two ways. What follows a running container is quick, but engines end it a
little early (Docker's ``local`` driver loses the last message, Podman what came while it looked away);
what reads the log of one that has ended is whole. Each reading goes on where the files end. Podman also
leaves out bytes in the middle where a container prints faster than it looks, so the last reading compares
what is in the files, and puts right what differs. Secrets are masked as the log is read, each time from
its beginning, so that all that is counted and compared is masked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from towline import logs
from towline.agent.supervision import kernel
from towline.logs import Writer
from towline.logs.masking import Masker, patterns
from towline.runtime import secrets
from towline.runtime.docker.frames import Frames
from towline.runtime.port import Plan

_GONE = "what it printed from here on was not kept: its secrets are gone, so that they could not be masked"


class Output:
    """The two streams of one attempt. ``seen`` counts the bytes of each that are in the files or dropped.
    Where its secrets cannot be read any more, nothing more is kept."""

    def __init__(self, plan: Plan) -> None:
        resume = Path(plan.logs).exists()
        self._writer = Writer(plan.logs, plan.max_log_bytes, resume=resume)
        self._plan = plan
        self._masked = _masked(plan)
        self.seen = [0, 0]
        self.last_ms = 0
        if resume:
            dropped = self._writer.dropped
            self.seen = [
                logs.size(plan.logs, name) + dropped[n] for n, name in enumerate(("stdout", "stderr"))
            ]

    async def take(self, source: AsyncIterator[bytes], last: bool = False) -> None:
        """Read a log from its beginning, and keep what is new; with ``last`` it is the truth about what is
        in the files, too. Raises what the source does."""
        if self._masked is None:
            return
        frames = Frames()
        past = [0, 0]
        maskers = [Masker(self._masked) for _ in past] if self._masked else None
        async for block in source:
            for stream, data in frames.feed(block):
                self._take(stream, data if maskers is None else maskers[stream].feed(data), past, last)
        if last and maskers is not None:
            for stream, masker in enumerate(maskers):
                self._take(stream, masker.finish(), past, last)

    def _take(self, stream: int, data: bytes, past: list[int], last: bool) -> None:
        before, past[stream] = past[stream], past[stream] + len(data)
        if last and before < self.seen[stream]:
            self._compare(stream, before, data)
        known = self.seen[stream] - before
        if known < len(data):
            self._keep(stream, data[max(0, known) :])

    def _compare(self, stream: int, offset: int, data: bytes) -> None:
        """What differs from the file, and all behind it, is taken back."""
        name = ("stdout", "stderr")[stream]
        there = (
            logs.read(self._plan.logs, name, offset, len(data)).data if self._kept(stream) > offset else b""
        )
        if data.startswith(there):
            return
        at = offset + next(n for n, (a, b) in enumerate(zip(data, there, strict=False)) if a != b)
        self._writer.rewind(stream, at)
        self.seen[stream] = at

    def _kept(self, stream: int) -> int:
        return self.seen[stream] - self._writer.dropped[stream]

    def _keep(self, stream: int, data: bytes) -> None:
        self.last_ms = kernel.wall_ms()
        self._writer.write(stream, data, self.last_ms)
        self.seen[stream] += len(data)

    def finish(self) -> None:
        """All of it is here."""
        if self._masked is None:
            self._writer.remark(0, _GONE, kernel.wall_ms())
        self._writer.finish(kernel.wall_ms())
        self._writer.close()  # also where a full disk does not take the count of what was dropped

    def close(self) -> None:
        """The files stay as they are; another one goes on with them."""
        self._writer.close()


def _masked(plan: Plan) -> tuple[bytes, ...] | None:
    """What to mask; None where that cannot be known, such as after a restart of the machine."""
    if not plan.secrets:
        return ()
    try:
        return patterns(secrets.read(plan.secrets))
    except OSError:
        return None
