"""Has an image's layers unpacked by a process of its own, whole or not at all; each layer once, however
many images have it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from towline.errors import NO_ROOM, NodeError
from towline.images.failures import ImageFailed, corrupt, disk_full
from towline.images.layout import Resolved, blob_path
from towline.images.partial import Work
from towline.images.records import Part

_libc = ctypes.CDLL(None, use_errno=True)
_TIMEOUT_S = 3600.0


class Limits(NamedTuple):
    total_bytes: int
    files: int


class Unpacked(NamedTuple):
    """``rootfs`` is relative to the store."""

    rootfs: str
    layers: tuple[Part, ...]


async def unpack(
    store: Path, name: str, layout: Path, image: Resolved, work: Work, limits: Limits
) -> Unpacked:
    """Unpack what is missing of the image. Raises ImageFailed (its reason, and which layer), NodeError."""
    diff_ids = list(dict.fromkeys(image.diff_ids))
    blobs = dict(zip(image.diff_ids, image.layers, strict=True))
    rootfs = f"layers/{folder_name(diff_ids[0])}/files" if len(image.diff_ids) == 1 else _root_of(image)
    layers = [
        _layer(store, work, number, diff_id, blobs[diff_id].digest, layout)
        for number, diff_id in enumerate(diff_ids)
    ]
    composed = None if len(image.diff_ids) == 1 else work.folder / "root"
    order = {
        "store": os.fspath(store),
        "parent": os.getpid(),
        "limits": list(limits),
        "layers": layers,
        "order": [diff_ids.index(diff_id) for diff_id in image.diff_ids],
        "rootfs": None if composed is None else os.fspath(composed),
    }
    answer = await _run(order, work, name)
    await asyncio.to_thread(_publish, store, layers, diff_ids, composed, store / rootfs)
    sizes = [one["size_bytes"] for one in answer["layers"]]
    return Unpacked(rootfs, tuple(map(Part, diff_ids, sizes)))


def folder_name(digest: str) -> str:
    """Without colons: mount(2) takes them for the end of a lower layer's path."""
    return digest.replace(":", "-")


def _root_of(image: Resolved) -> str:
    return f"unpacked/{folder_name(image.manifest.digest)}"


def _layer(store: Path, work: Work, number: int, diff_id: str, digest: str, layout: Path) -> dict[str, Any]:
    there = store / "layers" / folder_name(diff_id)
    content = None
    with suppress(OSError, msgspec.DecodeError):
        content = msgspec.json.decode((there / "content.json").read_bytes())
    return {
        "digest": digest,
        "diff_id": diff_id,
        "blob": os.fspath(blob_path(layout, digest)),
        "folder": os.fspath(work.folder / f"layer-{number}" if content is None else there),
        "content": content,
    }


async def _run(order: dict[str, Any], work: Work, name: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "towline.images.unpacking",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(work.lock,),
        cwd=work.folder,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            said, errors = await process.communicate(msgspec.json.encode(order))
    except TimeoutError:
        raise corrupt(
            f"The image {name} takes over {_TIMEOUT_S:.0f} s to unpack: no image needs that."
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    try:
        answer: dict[str, Any] = msgspec.json.decode(said)
    except msgspec.DecodeError:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise NodeError(
            f"The process that unpacks {name} ended with {process.returncode}: {last[0][:500]}"
        ) from None
    if "refused" in answer or "failed" in answer:
        raise _fault(name, answer)
    return answer


def _fault(name: str, answer: dict[str, Any]) -> ImageFailed | NodeError:
    layer = f"the layer {answer['layer']}" if "layer" in answer else "the image's root"
    if "refused" in answer:
        return corrupt(
            f"The image {name} is refused: of {layer} {answer['refused']}: build or copy it again."
        )
    if answer["errno"] in NO_ROOM:
        return disk_full(f"the unpacked image {name}")
    if answer["errno"] == errno.ENOENT and "layer" in answer:
        return corrupt(f"The image {name} lacks its layer {answer['layer']}: build or copy it again.")
    return NodeError(f"The image {name} cannot be unpacked: {answer['failed']}.")


def _publish(
    store: Path, layers: list[dict[str, Any]], diff_ids: list[str], composed: Path | None, target: Path
) -> None:
    """One step each: what has its final name is complete. Another process may have been first."""
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if layer["content"] is None:
            _rename(Path(layer["folder"]), store / "layers" / folder_name(diff_id))
    if composed is not None:
        _rename(composed, target)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def flush(folder: Path) -> None:
    """Have everything on the folder's disk written out. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)
