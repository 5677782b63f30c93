"""What attempts write under TOW_OUT: a folder an attempt, and of the one that succeeded, a folder an element.

    artifacts/JOB/TASK.attempts/INDEX.NUMBER/   what an attempt writes, and keeps where it failed
    artifacts/JOB/TASK/INDEX/                   the element's artifacts (TASK is a position)

A success moves the attempt's folder to the element's: retries never mix, and one bind mount of
``JOB/TASK`` shows a whole array as INDEX/ children. Nobody's empty folder is kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from msgspec import structs

from towline.core.commands import AttemptKey, AttemptUpdate, attempt_key
from towline.model.states import AttemptState, Reason


class Artifacts:
    """All folders below ``root``, made as they are needed."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)

    def begin_task(self, job: str, task: int) -> str:
        """Make and return the folder for what the task's attempts write. Raises OSError."""
        folder = f"{self._root}/{job}/{task}.attempts"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        return folder

    def element(self, job: str, task: int, index: int) -> str:
        """An element's artifacts; made if it wrote none. Raises OSError."""
        folder = f"{self._root}/{job}/{task}/{index}"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        return folder

    def array(self, job: str, task: int, first: int, last: int) -> str:
        """A task's folder with all elements first to last as INDEX/ children. Raises OSError."""
        folder = f"{self._root}/{job}/{task}"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        there = set(os.listdir(folder))
        for index in range(first, last + 1):
            if str(index) not in there:
                os.mkdir(f"{folder}/{index}", 0o755)
        return folder

    def path(self, job: str, task: int, index: int) -> str:
        """Where an element's artifacts are, if it has any."""
        return f"{self._root}/{job}/{task}/{index}"

    def standing(self, job: str, task: int, index: int) -> int | None:
        """Which attempt wrote an element's artifacts; None where there are none."""
        if not os.path.isdir(self.path(job, task, index)):  # asked of every success
            return None
        return _read_number(f"{self._root}/{job}/{task}.attempts/{index}.kept")

    def place(self, folder: str, job: str, task: int, index: int, number: int) -> None:
        """Have a tree be what attempt ``number`` of an element wrote, in place of any other. Raises
        OSError."""
        attempts, target = f"{self._root}/{job}/{task}.attempts", self.path(job, task, index)
        os.makedirs(target.rpartition("/")[0], mode=0o755, exist_ok=True)
        old = f"{attempts}/{index}.old.staged"
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        Path(f"{attempts}/{index}.kept").write_text(str(number))
        os.rename(folder, target)
        shutil.rmtree(old, ignore_errors=True)

    def settle(self, update: AttemptUpdate) -> AttemptUpdate:
        """Keep what an attempt that has ended wrote, before anybody hears of its end.

        Idempotent. Returns the update, changed to a failure where a success could not be kept.
        """
        try:
            key = attempt_key(update.attempt)
        except ValueError:
            return update
        try:
            self._settle(key, update.exit_code == 0 and update.reason == Reason.EXITED)
        except OSError as error:
            return structs.replace(
                update,
                state=AttemptState.FINISHED.value,
                reason=Reason.DISK_FULL.value,
                message=f"What it wrote to TOW_OUT could not be kept on the node: {error.strerror}.",
            )
        return update

    def _settle(self, key: AttemptKey, succeeded: bool) -> None:
        job, task, index, number = key
        written = f"{self._root}/{job}/{task}.attempts/{index}.{number}"
        try:
            os.rmdir(written)
            return  # it wrote nothing, which one system call has found out
        except FileNotFoundError:
            return  # settled before
        except OSError:
            pass
        if succeeded:
            self._publish(written, f"{self._root}/{job}/{task}/{index}", number)

    def _publish(self, written: str, target: str, number: int) -> None:
        """Where two attempts of one element succeeded, the newer one's artifacts stand, since only its
        result can be the one that counts. A number above 1 is noted for that."""
        note = f"{written.rpartition('.')[0]}.kept"
        if number > 1:
            if _read_number(note) > number:
                return
            Path(note).write_text(str(number))
        try:
            os.rename(written, target)
            return
        except FileNotFoundError:
            os.makedirs(target.rpartition("/")[0], mode=0o755, exist_ok=True)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if number <= 1:  # a newer one's stand there
                return
            os.rename(target, f"{written}.replaced")
        os.rename(written, target)


def _read_number(note: str) -> int:
    try:
        return int(Path(note).read_text())
    except (FileNotFoundError, ValueError):
        return 1
