"""Reads one order from its standard input, unpacks layers and puts them together, and answers with
one JSON document: ``{"layers": [...], "sandboxed": bool}`` or ``{"refused" | "failed": sentence, …}``."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

from towline.images.unpacking import sandbox
from towline.images.unpacking.blob import Blob, Limits, Refused, Spent
from towline.images.unpacking.layer import Unpacked, unpack_layer
from towline.images.unpacking.rootfs import Layer, compose


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    sandboxed = sandbox.enter(Path(order["store"]), order["parent"])
    at: dict[str, Any] = {}
    try:
        answer = _carry_out(order, at)
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    except MemoryError:
        answer = {"refused": "it takes more memory to unpack than is given to it"}
    except OSError as error:
        answer = {"failed": error.strerror or str(error), "errno": error.errno or errno.EIO}
    json.dump({**answer, **at, "sandboxed": sandboxed}, sys.stdout)


def _carry_out(order: dict[str, Any], at: dict[str, Any]) -> dict[str, Any]:
    """``at`` is told which layer is in hand."""
    spent = Spent(Limits(*order["limits"]))
    layers: list[Layer] = []
    for wanted in order["layers"]:
        at["layer"] = wanted["digest"]
        layers.append(_layer(wanted, spent))
    at.pop("layer", None)
    if order["rootfs"] is not None:
        compose([layers[place] for place in order["order"]], Path(order["rootfs"]))
    return {"layers": [layer.content._asdict() for layer in layers]}


def _layer(wanted: dict[str, Any], spent: Spent) -> Layer:
    """One that is in the store already, or one that is unpacked now."""
    folder = Path(wanted["folder"])
    if wanted["content"] is not None:
        content = Unpacked(**wanted["content"])
        spent.add_bytes(content.size_bytes)
        return Layer(folder / "files", content)
    folder.mkdir(mode=0o700)
    files = folder / "files"
    files.mkdir(mode=0o755)
    blob = Blob(Path(wanted["blob"]), wanted["digest"], wanted["diff_id"], spent)
    try:
        content = unpack_layer(blob, files, spent)
    finally:
        blob.close()
    with (folder / "content.json").open("w") as file:
        json.dump(content._asdict(), file)
    return Layer(files, content)


if __name__ == "__main__":
    main()
