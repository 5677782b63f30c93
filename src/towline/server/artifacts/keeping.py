"""Artifacts in the object store, by attempt: blobs as they come, and a manifest once they are whole.

    artifacts/JOB/blobs/TASK.INDEX.NUMBER/DIGEST
    artifacts/JOB/manifests/TASK/INDEX.NUMBER

Each attempt has blobs of its own: what a node knows of others' it cannot claim as its own, and nothing has to
be counted before it is removed. All of it blocks but ``taking``.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable

from towline.core.commands import AttemptKey
from towline.errors import Conflict, NotFound, RequestError
from towline.logs.objects import Objects
from towline.server.artifacts.taking import Taking
from towline.wire import manifest as wire
from towline.wire.manifest import Kept, Manifest

MANIFESTS_KEPT = 8
"""Decoded ones, for whoever reads a file piece by piece."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Keeping:
    """Of one server. All methods raise StoreError where the object store fails."""

    def __init__(self, objects: Objects) -> None:
        self.taking = Taking()
        self._objects = objects
        self._lock = threading.Lock()
        self._decoded: OrderedDict[AttemptKey, Manifest] = OrderedDict()

    # --- what nodes bring -------------------------------------------------------------------------
    def kept(self, attempt: AttemptKey) -> Kept:
        if self.manifest(attempt) is not None:
            return Kept(whole=True)
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
        self._objects.put(_manifest(attempt), data)

    def _blob_sizes(self, attempt: AttemptKey) -> dict[str, int]:
        sizes = self._objects.sizes(_blobs(attempt))
        return {key.rpartition("/")[2]: size for key, size in sizes.items()}

    # --- what is there ----------------------------------------------------------------------------
    def manifest(self, attempt: AttemptKey) -> Manifest | None:
        """None where the attempt has written nothing, or not all of it is there."""
        with self._lock:
            known = self._decoded.get(attempt)
            if known is not None:
                self._decoded.move_to_end(attempt)
                return known
        data = self._objects.get(_manifest(attempt))
        if data is None:
            return None
        manifest = wire.decode(data)
        with self._lock:
            self._decoded[attempt] = manifest
            while len(self._decoded) > MANIFESTS_KEPT:
                self._decoded.popitem(last=False)
        return manifest

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
        """Bytes of the content, up to the end of a blob."""
        if manifest.inline:
            return manifest.inline[offset : offset + length]
        position, within = divmod(offset, wire.BLOB_BYTES)
        length = min(length, wire.blob_size(manifest, position) - within)
        return self.blob(attempt, manifest.blobs[position].hex(), within, length)

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
        with self._lock:
            self._decoded.clear()
        return freed


def _check(digest: str) -> None:
    if not _DIGEST.match(digest):
        raise RequestError(f"{digest[:100]!r} is no blob's name: it is a SHA-256 in lower-case hexadecimal.")


def _blobs(attempt: AttemptKey) -> str:
    job, task, index, number = attempt
    return f"artifacts/{job}/blobs/{task}.{index}.{number}/"


def _manifest(attempt: AttemptKey) -> str:
    job, task, index, number = attempt
    return f"artifacts/{job}/manifests/{task}/{index}.{number}"
