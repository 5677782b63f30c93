"""The object store: large things under keys, whole or not there at all. A folder of the server, or a bucket.

All of it blocks. A folder is synced to its disk before ``put`` returns, which obstore leaves to others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import OperatorError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class Objects:
    """Keys have slashes between names. All methods raise StoreError where the store fails."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        """``folder`` is where a local store has its files."""
        self._store = store
        self._folder = folder

    def put(self, key: str, data: bytes) -> None:
        """Keep ``data``, in place of what was there; durable on return."""
        import obstore

        with _failing():
            obstore.put(self._store, key, data)
            if self._folder is not None:
                self._sync(self._folder / key)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Up to ``length`` bytes from ``offset`` on; None where nothing is under the key."""
        import obstore
        from obstore.exceptions import NotFoundError

        if length == 0:
            return b""
        with _failing():
            try:
                if length is None:
                    return bytes(obstore.get(self._store, key).bytes())
                return bytes(obstore.get_range(self._store, key, start=offset, length=length))
            except (FileNotFoundError, NotFoundError):
                return None

    def adopt(self, file: Path, key: str) -> None:
        """Move a file whose content is durable into the store. Its folder loses it last."""
        import obstore

        with _failing():
            if self._folder is None:
                obstore.put(self._store, key, file)
                file.unlink()
                return
            target = self._folder / key
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                file.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                obstore.put(self._store, key, file)
                self._sync(target)
                file.unlink()
            else:
                self._sync(target)

    def delete(self, key: str) -> None:
        """What is under a key, if anything."""
        import obstore
        from obstore.exceptions import NotFoundError

        with _failing(), contextlib.suppress(FileNotFoundError, NotFoundError):
            obstore.delete(self._store, key)

    def sizes(self, prefix: str) -> dict[str, int]:
        """By key, how long all below ``prefix`` (which ends with a slash) are."""
        import obstore

        with _failing():
            found = obstore.list(self._store, prefix, chunk_size=1000)
            return {meta["path"]: meta["size"] for chunk in found for meta in chunk}

    def remove(self, prefix: str) -> None:
        """All below ``prefix``, which ends with a slash."""
        import obstore

        with _failing():
            if self._folder is not None:  # with what was being written when a server died
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self._folder / prefix)
                return
            keys = list(self.sizes(prefix))
            for begin in range(0, len(keys), 1000):
                obstore.delete(self._store, keys[begin : begin + 1000])

    def _sync(self, file: Path) -> None:
        """The file, and the folders that it may be the first in."""
        assert self._folder is not None
        for path in (file, *_between(file, self._folder)):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _between(file: Path, top: Path) -> Iterable[Path]:
    for folder in file.parents:
        yield folder
        if folder == top:
            return


def open_objects(url: str, home: Path) -> Objects:
    """That of a setting: ``s3://…``, ``gs://…``, ``az://…``, ``file:///…``; empty: a folder of ``home``.
    Raises OperatorError."""
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    try:
        if url and not url.startswith("file://"):
            return Objects(from_url(url))
        folder = Path(url.removeprefix("file://")) if url else home / "objects"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Objects(LocalStore(folder), folder)
    except (BaseError, OSError, ValueError) as error:
        told = _first_line(error)
        raise OperatorError(f"object_store is {url!r}, which cannot be opened: {told}") from None


@contextmanager
def _failing() -> Generator[None, None, None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise StoreError(f"the object store fails: {_first_line(error)}") from error
    except OSError as error:
        raise StoreError(f"the object store fails: {error.strerror or error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
