"""Two PostgreSQL servers on small disks: a primary, and a standby without which it confirms no commit.

``fail_over`` kills the primary and makes the standby the next one; what is left of the old one goes, and a
new standby is made in its place. Both are named in ``store_url``: servers find the one that takes writes.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests import guard
from tests.e2e.home import until
from tests.postgres import DATABASE, USER, Postgres, programs, send
from tests.small_disk import SmallDisk

DISK_MIB = 256
_SMALL = {
    "min_wal_size": "32MB",
    "max_wal_size": "32MB",
    # What a standby that was away for a moment still has to get.
    "wal_keep_size": "96MB",
    "shared_buffers": "16MB",
    # A standby whose primary was away is back at once: nothing is confirmed before.
    "wal_retrieve_retry_interval": "200ms",
}
_LOGS = 8
"""As many as it keeps, and some."""
_NAMES = "synchronous_standby_names"


class Pair:
    """``primary`` changes; ``slots`` stay, each with a folder of its own."""

    def __init__(self) -> None:
        self.slots = (Postgres(**_SMALL), Postgres(**_SMALL))
        self._disks = [self._mounted(slot) for slot in self.slots]
        self._at = 0
        self._hands = ThreadPoolExecutor(1)
        """A server ends with the thread that has started it."""

    @staticmethod
    def _mounted(slot: Postgres) -> SmallDisk:
        guard.watch(slot.folder)
        disk = SmallDisk(slot.folder, f"{DISK_MIB}m")
        slot.own_folder()
        return disk

    @property
    def primary(self) -> Postgres:
        return self.slots[self._at]

    @property
    def standby(self) -> Postgres:
        return self.slots[1 - self._at]

    def by_hand(self, work: Callable[[], object]) -> None:
        self._hands.submit(work).result()

    def start(self) -> None:
        self.primary.make()
        self.by_hand(self.primary.start)
        self.primary.run(f"CREATE DATABASE {DATABASE}", "postgres")
        self._attach()

    def _attach(self) -> None:
        """A standby, and from then on the primary waits for it at each commit."""
        self.standby.copy(self.primary)
        self.by_hand(self.standby.start)
        self._wait_for("streaming", "state")
        self._set_names("*")
        self._wait_for("sync", "sync_state")

    def _wait_for(self, what: str, column: str) -> None:
        asked = f"SELECT {column} FROM pg_stat_replication"
        until(lambda: self.primary.run(asked) == what, f"the standby to be {what}")

    def _set_names(self, names: str) -> None:
        self.primary.run(f"ALTER SYSTEM SET {_NAMES} = '{names}'")
        self.primary.run("SELECT pg_reload_conf()")

    # --- what happens to it -------------------------------------------------------------------------
    def fail_over(self, *, asleep: bool = False) -> None:
        """The primary is gone for good, or sleeps (see ``wake``), and the standby takes writes; without one
        of its own yet."""
        if asleep:
            send(self.primary.processes(), signal.SIGSTOP)
        else:
            self.primary.kill()
        with (self.standby.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"{_NAMES} = ''\n")
        self.standby.run("SELECT pg_reload_conf()")
        self.standby.run("SELECT pg_promote()")
        self._at = 1 - self._at

    def wake(self) -> None:
        """Whoever was the primary believes to be one still; it waits for a standby that has gone."""
        send(self.standby.processes(), signal.SIGCONT)

    def rebuild(self) -> None:
        """Another standby in place of what was the primary."""
        if not self.standby.ended():
            self.standby.kill()
        shutil.rmtree(self.standby.data)
        self._attach()

    def fill(self) -> None:
        """The primary's disk; and use up what it has of log files that it may write all the same."""
        self._disks[self._at].fill()
        asked = [
            str(programs() / "psql"),
            "-h",
            str(self.primary.folder),
            "-U",
            USER,
            "-d",
            DATABASE,
            "-qAtX",
        ]
        use_one = "SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'towline-test', 'x')"
        for _ in range(_LOGS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run([*asked, "-c", use_one], capture_output=True, cwd="/", timeout=5)
                if done.returncode:
                    return

    def free(self) -> None:
        """And start it again, where it has stopped itself."""
        with contextlib.suppress(FileNotFoundError):  # a primary that has failed is cleared
            self._disks[self._at].free()
        until(self._is_back, "the database to take connections again")

    def _is_back(self) -> bool:
        if self.primary.ended():
            self.by_hand(self.primary.start)
        return self.primary.takes_connections()

    def remove(self) -> None:
        for slot in self.slots:
            send(slot.processes(), signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                slot.stop(signal.SIGQUIT)
            subprocess.run(["umount", "--lazy", slot.folder], check=False)
            guard.end(slot.folder)
            slot.remove()
        self._hands.shutdown()
