"""The root of a container as mounts: whose files it shows, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.containers

IN_MOUNTS_OF_ITS_OWN = """
import json, os, sys
from pathlib import Path
from towline.runtime.linux.spaces import enter_mounts_without
from towline.runtime.oci.ids import Ids, Namespaces
from towline.runtime.oci.overlay import MappedImages, Overlay

enter_mounts_without(None)
lower, work, attached = sys.argv[1:]
overlay = Overlay(f"{work}/upper", f"{work}/work", f"{work}/root")
ids = Ids(1000013824, 65536, 0, 0)
overlay.mount(lower, ids, MappedImages(Namespaces()), attached=attached == "True")
root = Path(overlay.root)
(root / "of root").write_text("changed")
found = {path.name: path.stat().st_uid for path in root.iterdir()}
mode = root.stat().st_mode & 0o7777
overlay.unmount()
text = Path("/proc/self/mountinfo").read_text()
print(json.dumps([found, root.stat().st_uid, mode, work in text, overlay.remove(), os.listdir(work)]))
"""


@pytest.mark.parametrize("attached", [False, True])
def test_an_image_is_shown_with_its_owners_moved(tmp_path: Path, attached: bool):
    lower, work = tmp_path / "image", tmp_path / "work"
    work.mkdir()
    lower.mkdir(mode=0o751)
    for name, uid in (("of root", 0), ("of a user", 1000), ("of nobody", 65534)):
        (lower / name).touch()
        os.chown(lower / name, uid, uid)
    argv = [sys.executable, "-c", IN_MOUNTS_OF_ITS_OWN, str(lower), str(work), str(attached)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, owner, mode, mounted, removed, left = json.loads(done.stdout)
    first = 1000013824
    assert found == {"of root": first, "of a user": first + 1000, "of nobody": first + 65534}
    assert (owner, mode, mounted, removed, left) == (0, 0o751, False, True, [])
    assert (lower / "of root").read_text() == ""
