"""The keeper's half of the node lease: what lives past it although the supervisor should have ended it.

A supervisor that has not is frozen or stuck, and might go on with a start at any later time: it is killed
first, and the next one takes up what the lease does not concern.
"""

from __future__ import annotations

import contextlib
import os
import signal

from towline.agent.supervision import kernel
from towline.agent.supervision.leasing.files import LOOK_MS, LeasedFolder, LeaseFile, kill
from towline.core import lease as rules


class Cutting:
    """``watching``: anything may live by the lease."""

    def __init__(self, node_dir: str) -> None:
        self._lease = LeaseFile(node_dir)
        self._folder = LeasedFolder(node_dir)
        self._killed_for_ms = -1
        self.watching = True

    @property
    def patience_s(self) -> float | None:
        """After how long to look again; None: once somebody has begun to live by it."""
        return LOOK_MS / 1000 if self.watching else None

    def look(self, supervisor: int) -> None:
        """Kill what has to be dead. ``supervisor`` is the child that should have; 0: there is none."""
        if not self.watching:
            return
        names = self._folder.names()
        self.watching = bool(names)
        held = self._lease.read()
        overdue = bool(names) and rules.is_overdue(held, kernel.boottime_ms())
        if overdue and supervisor and self._killed_for_ms != held.until_ms:
            self._killed_for_ms = (
                held.until_ms
            )  # not again and again, where the kernel cannot kill what it had
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGKILL)
        if overdue:
            for name in names:
                self._folder.cut(name)
        found = [self._folder.read(name) for name, cut in names.items() if cut or overdue]
        kill([entry for entry in found if entry is not None])
