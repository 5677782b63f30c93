"""A 200 MB image from a local registry: what its first start costs beside the plain tools, and the next."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from tests.images import LAYER, Layout, digest_of
from tests.registry import Registry

from benchmarks.figures import Figure, Options, Report, median_of
from towline.images import ImageStore

LAYERS = 4
FILES = 2_000
FILE_BYTES = 26_000
WARM = 20


def run(options: Options) -> Report:
    """Cold in turn with skopeo and umoci; warm by tag (which asks the registry) and by digest."""
    with tempfile.TemporaryDirectory(prefix="bench-images-") as place:
        folder = Path(place)
        registry = Registry(folder)
        try:
            name = registry.push(_image(folder / "layout", options.scale), "big:1")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the agent's
                figures = runner.run(_measured(folder, name, options.pairs))
        finally:
            registry.close()
    size_mb = LAYERS * FILES * FILE_BYTES * options.scale / 1e6
    method = (
        f"an image of {size_mb:.0f} MB in {LAYERS} layers with {int(FILES * options.scale)} files each, "
        f"pulled from a registry beside; {options.pairs} times in turn with skopeo copy and umoci unpack"
    )
    return Report(name="images", title="an image's start", method=method, figures=figures)


def _image(path: Path, scale: float) -> str:
    """Half of each file can be compressed, as programs and data can."""
    layout = Layout(path)
    source = random.Random(4)
    blobs, diff_ids = [], []
    for number in range(LAYERS):
        tar = _layer(source, number, int(FILES * scale))
        blobs.append(layout.blob(gzip.compress(tar, 1, mtime=0), LAYER))
        diff_ids.append(digest_of(tar))
    return layout.tag(layout.manifest(blobs, diff_ids))


def _layer(source: random.Random, number: int, files: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for at in range(files):
            info = tarfile.TarInfo(f"opt/{number}/{at % 50}/{at}.py")
            info.size = FILE_BYTES
            content = source.randbytes(FILE_BYTES // 2) + b"def text():\n" * (FILE_BYTES // 24)
            tar.addfile(info, io.BytesIO(content[:FILE_BYTES].ljust(FILE_BYTES)))
    return out.getvalue()


async def _measured(folder: Path, name: str, pairs: int) -> list[Figure]:
    cold: list[float] = []
    tools: list[float] = []
    for pair in range(pairs):
        root = folder / f"store-{pair}"
        cold.append(await _timed(lambda root=root: ImageStore(root).ensure(name, None)))
        tools.append(await _timed(lambda: asyncio.to_thread(_tools, folder, name)))
        for left in ("copy", "bundle"):
            shutil.rmtree(folder / left)
    store = ImageStore(folder / "store-0")
    image = await store.ensure(name, None)
    by_digest = f"{name.rpartition(':')[0]}@{image.digest}"
    tag: list[float] = []
    alone: list[float] = []
    inspect = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    for _ in range(WARM):
        tag.append(1000 * await _timed(lambda: store.ensure(name, None), settle=False))
        begin = time.perf_counter()
        await asyncio.to_thread(subprocess.run, inspect, check=True, capture_output=True)
        alone.append(1000 * (time.perf_counter() - begin))
    pinned = [1000 * await _timed(lambda: store.ensure(by_digest, None), settle=False) for _ in range(WARM)]
    ratio = statistics.median(ours / theirs for ours, theirs in zip(cold, tools, strict=True))
    return [
        Figure(name="cold, as a ratio to the tools", value=ratio, most=1.3),
        median_of("cold: pull and unpack", cold, "s"),
        median_of("skopeo copy and umoci unpack", tools, "s"),
        median_of("warm, by tag: what the image adds", tag, "ms", most=30.0),
        median_of("of which skopeo inspect alone takes", alone, "ms"),
        median_of("warm, by digest or pinned", pinned, "ms", most=30.0),
    ]


def _tools(folder: Path, name: str) -> None:
    source = f"docker://{name}"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{folder}/copy:1"]
    subprocess.run(copy, check=True, capture_output=True)
    unpack = ["umoci", "unpack", "--image", f"{folder}/copy:1", folder / "bundle"]
    subprocess.run(unpack, check=True, capture_output=True)


async def _timed(work: Callable[[], Awaitable[object]], *, settle: bool = True) -> float:
    """Seconds. ``settle``: what earlier runs have written is on the disk before."""
    if settle:
        await asyncio.to_thread(os.sync)
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin
