"""Artifacts in the object store, by attempt: blobs as they come, and a manifest once they are whole.

    artifacts/JOB/blobs/TASK.INDEX.NUMBER/DIGEST
    artifacts/JOB/manifests/TASK/INDEX.NUMBER

A manifest is kept behind its SHA-256, so that what users read can be checked whoever has kept it.

Each attempt has blobs of its own: what a node knows of others' it cannot claim as its own, and nothing has to
be counted before it is removed. All of it blocks but ``taking``.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from towline.core.commands import AttemptKey, attempt_id
from towline.errors import Conflict, Damaged, NotFound, RequestError
from towline.logs.objects import Objects
from towline.server.artifacts.taking import Taking
from towline.wire import manifest as wire
from towline.wire.manifest import Kept, Manifest

MANIFESTS_KEPT, BLOBS_KEPT = 8, 4
"""In memory, for whoever reads a file piece by piece, or one small file after the other."""
_SEALED = b"manifest1"
_T = TypeVar("_T")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Keeping:
    """Of one server. All methods raise StoreError where the object store fails."""

    def __init__(self, objects: Objects) -> None:
        self.taking = Taking()
        self._objects = objects
        self._manifests = _Recent[Manifest](MANIFESTS_KEPT)
        self._contents = _Recent[bytes](BLOBS_KEPT)

    # --- what nodes bring -------------------------------------------------------------------------
    def kept(self, attempt: AttemptKey) -> Kept:
        try:
            if self.manifest(attempt) is not None:
                return Kept(whole=True)
        except Damaged:  # its node still has it, and brings it again
            pass
        return Kept(whole=False, blobs=tuple(sorted(self._blob_sizes(attempt))))

    def put_blob(self, attempt: AttemptKey, digest: str, data: bytes) -> None:
        """Raises RequestError where the content is not what its name says."""
        _check(digest)
        found = wire.digest_of(data).hex()
        if found != digest or not 0 < len(data) <= wire.BLOB_BYTES:
            raise RequestError(
                f"The blob was damaged on its way: {digest} came as {len(data)} bytes of SHA-256 {found}."
            )
        self._objects.put(f"{_blobs(attempt)}{digest}", data)

    def finish(self, attempt: AttemptKey, data: bytes) -> None:
        """Take the manifest: its artifacts are there now. Raises RequestError for one that is wrong, Conflict
        while blobs are missing."""
        try:
            manifest = wire.decode(data)
        except ValueError as error:
            raise RequestError(f"The manifest is wrong: {error}.") from None
        sizes = self._blob_sizes(attempt) if manifest.blobs else {}
        for position, blob in enumerate(manifest.blobs):
            if sizes.get(blob.hex()) != wire.blob_size(manifest, position):
                raise Conflict(f"The blob {blob.hex()} is not there: bring it first.")
        self._objects.put(_manifest(attempt), _SEALED + wire.digest_of(data) + data)

    def _blob_sizes(self, attempt: AttemptKey) -> dict[str, int]:
        sizes = self._objects.sizes(_blobs(attempt))
        return {key.rpartition("/")[2]: size for key, size in sizes.items()}

    # --- what is there ----------------------------------------------------------------------------
    def manifest(self, attempt: AttemptKey) -> Manifest | None:
        """None where the attempt has written nothing, or not all of it is there. Raises Damaged."""
        known = self._manifests.get(attempt)
        if known is not None:
            return known
        data = self._objects.get(_manifest(attempt))
        if data is None:
            return None
        return self._manifests.put(attempt, _unsealed(attempt, data))

    def written(self, job: str, task: int) -> set[tuple[int, int]]:
        """(index, attempt number) of all attempts of a task that have written something."""
        names = (key.rpartition("/")[2] for key in self._objects.sizes(f"artifacts/{job}/manifests/{task}/"))
        return {(int(index), int(number)) for index, _, number in (name.partition(".") for name in names)}

    def blob(self, attempt: AttemptKey, digest: str, offset: int = 0, length: int | None = None) -> bytes:
        """Raises NotFound."""
        _check(digest)
        found = self._objects.get(f"{_blobs(attempt)}{digest}", offset, length)
        if found is None:
            raise NotFound(f"There is no blob {digest}.")
        return found

    def blob_bytes(self, attempt: AttemptKey, digest: str) -> int:
        """How long a blob of artifacts that are whole is. Raises NotFound."""
        manifest = self.manifest(attempt)
        for position, blob in enumerate(() if manifest is None else manifest.blobs):
            if manifest is not None and blob.hex() == digest:
                return wire.blob_size(manifest, position)
        raise NotFound(f"There is no blob {digest[:100]}.")

    def read(self, attempt: AttemptKey, manifest: Manifest, offset: int, length: int) -> bytes:
        """Bytes of the content, up to the end of a blob, which is checked. Raises Damaged."""
        if manifest.inline:
            return manifest.inline[offset : offset + length]
        position, within = divmod(offset, wire.BLOB_BYTES)
        return self._content(attempt, manifest.blobs[position])[within : within + length]

    def _content(self, attempt: AttemptKey, digest: bytes) -> bytes:
        known = self._contents.get((attempt, digest))
        if known is not None:
            return known
        key = f"{_blobs(attempt)}{digest.hex()}"
        data = self._objects.get(key)
        if data is None:
            raise _damaged(attempt, f"a part of it, {key}, is gone")
        if wire.digest_of(data) != digest:
            raise _damaged(attempt, f"a part of it, {key}, is not what was brought")
        return self._contents.put((attempt, digest), data)

    # --- retention --------------------------------------------------------------------------------
    def size_bytes(self, jobs: Iterable[str]) -> int:
        return sum(sum(self._objects.sizes(f"artifacts/{job}/").values()) for job in jobs)

    def drop_jobs(self, jobs: Iterable[str]) -> int:
        """Remove all of these jobs; returns the bytes freed."""
        freed = 0
        for job in jobs:
            size = self.size_bytes([job])
            if size:
                self._objects.remove(f"artifacts/{job}/")
            freed += size
        self._manifests.clear()
        self._contents.clear()
        return freed


class _Recent(Generic[_T]):
    """The last few of what was read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, _T] = OrderedDict()

    def get(self, key: Hashable) -> _T | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Hashable, value: _T) -> _T:
        with self._lock:
            self._known[key] = value
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return value

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


def _unsealed(attempt: AttemptKey, data: bytes) -> Manifest:
    """Raises Damaged. Those of earlier builds have no digest."""
    if data.startswith(_SEALED):
        digest, data = data[len(_SEALED) :][: wire.DIGEST_BYTES], data[len(_SEALED) + wire.DIGEST_BYTES :]
        if wire.digest_of(data) != digest:
            raise _damaged(attempt, f"the list of it, {_manifest(attempt)}, is not what was brought")
    try:
        return wire.decode(data)
    except ValueError as error:
        raise _damaged(attempt, f"the list of it, {_manifest(attempt)}, cannot be read: {error}") from None


def _damaged(attempt: AttemptKey, why: str) -> Damaged:
    return Damaged(
        f"What attempt {attempt_id(attempt)} wrote is damaged in the object store: {why}. Look at its disk "
        "or bucket, and run the element again with tow retry."
    )


def _check(digest: str) -> None:
    if not _DIGEST.match(digest):
        raise RequestError(f"{digest[:100]!r} is no blob's name: it is a SHA-256 in lower-case hexadecimal.")


def _blobs(attempt: AttemptKey) -> str:
    job, task, index, number = attempt
    return f"artifacts/{job}/blobs/{task}.{index}.{number}/"


def _manifest(attempt: AttemptKey) -> str:
    job, task, index, number = attempt
    return f"artifacts/{job}/manifests/{task}/{index}.{number}"
