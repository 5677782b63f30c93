"""Containers in a bare loop: ``xargs -P4`` with the engine's own commands, over what the node would give it.

``python -m benchmarks.bare_loop ENGINE ROOTFS FOLDER COUNT`` prints, as JSON, the seconds of the loop over
the node's own ``config.json`` and overlays (made before, and not counted), and the CPU seconds of all its
processes; then those of ``run`` over a bare bundle. A program of its own because it needs its own mounts.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from towline.images import ImageConfig
from towline.model.job import Resources, TaskSpec
from towline.runtime.cgroups import cgroup_name, find_cgroups
from towline.runtime.linux.spaces import become_subreaper, enter_mounts_without, hybrid_mount
from towline.runtime.oci.binds import BindMount, Owner, show
from towline.runtime.oci.config import build_config
from towline.runtime.oci.engine import ENGINES
from towline.runtime.oci.ids import Namespaces
from towline.runtime.oci.overlay import MappedImages, Overlay, overlay_of
from towline.runtime.oci.probe import probe_oci
from towline.runtime.oci.spec import OUT_TARGET, final_argv_env, read_data, runtime_data
from towline.runtime.policy import Wanted
from towline.runtime.port import Plan

AT_A_TIME = 4
CPU_MILLI, MEMORY_BYTES, PIDS = 500, 64 << 20, 64
_OPTIONS = {"crun": "--cgroup-manager=cgroupfs", "runc": ""}
_WITH_CONFIG = '{engine} --root {state} {options} run --detach --bundle "{folder}/$1" "loop-0-$1-1" && ' \
    '{engine} --root {state} {options} delete --force "loop-0-$1-1"'  # fmt: skip
_PLAIN = '{engine} --root {state} {options} run --bundle {folder}/plain "plain-$1"'


class Measured(NamedTuple):
    wall_s: float
    cpu_s: float


class Loop:
    """Elements laid out in ``folder`` as the node's supervisor does."""

    def __init__(self, engine: str, rootfs: str, folder: Path) -> None:
        found = probe_oci(folder, Wanted(engine=engine)).isolation
        if found is None:
            raise RuntimeError(f"{engine} cannot be used here: see tow doctor")
        self.engine, self.rootfs, self.folder, self.isolation = ENGINES[engine], rootfs, folder, found
        self.namespaces = Namespaces()
        self.images = MappedImages(self.namespaces)
        self.cgroups = find_cgroups()
        self.overlays: list[Overlay] = []

    def lay_out(self, number: int) -> None:
        plan = self._plan(number)
        data = read_data(plan)
        for path in (plan.directory, plan.out):
            Path(path).mkdir(parents=True)
        name = cgroup_name(plan.attempt, str(self.folder))
        overlay = overlay_of(plan.directory, name)
        self.overlays.append(overlay)
        config = build_config(plan, data, overlay.root, self.cgroups, name, 500)
        Path(plan.directory, "config.json").write_bytes(msgspec.json.encode(config))
        ids = data.ids
        overlay.mount(self.rootfs, ids, self.images)
        first = 0 if ids is None else ids.first
        shown = None if ids is None else self.namespaces.of_folder(ids, data.uid, data.gid)
        out = BindMount(plan.out, OUT_TARGET, False)
        show(overlay.root, out, shown, Owner(first, first, *data.outside))

    def _plan(self, number: int) -> Plan:
        resources = Resources(cpu_milli=CPU_MILLI, memory_bytes=MEMORY_BYTES, pids=PIDS)
        task = TaskSpec(command=("true",), resources=resources)
        image = ImageConfig(env=("PATH=/bin",))
        tow = {"TOW_JOB": "loop", "TOW_TASK": "t", "TOW_INDEX": str(number), "TOW_ATTEMPT": "1"}
        argv, env = final_argv_env(task.command, None, {}, tow, image)
        return Plan(
            attempt=f"loop-0-{number}-1", runtime="oci", argv=argv, env=env,
            directory=str(self.folder / str(number)), logs="", out=str(self.folder / f"{number}.out"),
            timeout_ms=None, grace_ms=0, max_log_bytes=0,
            cpu_milli=CPU_MILLI, memory_bytes=MEMORY_BYTES, pids=PIDS,
            runtime_data=runtime_data(task, self.rootfs, image, [], self.isolation),
        )  # fmt: skip

    def run(self, script: str, count: int) -> Measured:
        """The script for 0, 1, …, so many at a time. Raises RuntimeError."""
        line = script.format(
            engine=self.engine.name, options=_OPTIONS[self.engine.name], folder=self.folder,
            state=self.folder / "state",
        )  # fmt: skip
        null = self._null()
        argv = ["xargs", f"-P{AT_A_TIME}", "-I{}", "sh", "-c", f"exec <{null} >{null}; {line}", "sh", "{}"]
        cpu_s, begin = _children_s(), time.perf_counter()
        with tempfile.TemporaryFile("w+") as numbers:
            numbers.write("\n".join(map(str, range(count))))
            numbers.seek(0)
            xargs = subprocess.Popen(argv, stdin=numbers, stdout=subprocess.DEVNULL).pid
        wall_s = self._reap(xargs, begin)
        return Measured(wall_s, _children_s() - cpu_s)

    def _null(self) -> Path:
        """A device like /dev/null of our own: crun gives what it has as input to the container's user."""
        null = self.folder / "null"
        if not null.exists():
            os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        return null

    def _reap(self, xargs: int, begin: float) -> float:
        """Take the containers as they end, as a system's first process does; the seconds until xargs did."""
        wall_s = 0.0
        with suppress(ChildProcessError):
            while True:
                pid, status = os.wait()
                if pid == xargs:
                    wall_s = time.perf_counter() - begin
                    if status != 0:
                        raise RuntimeError(f"xargs ended with {os.waitstatus_to_exitcode(status)}")
        return wall_s

    def make_plain(self) -> None:
        """What ``crun spec`` writes, without its terminal; the root is the image's own, read-only."""
        bundle = self.folder / "plain"
        bundle.mkdir()
        subprocess.run([self.engine.name, "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/true"]}
        config["root"] = {"path": self.rootfs, "readonly": True}
        (bundle / "config.json").write_text(json.dumps(config))

    def clean_up(self) -> None:
        for overlay in self.overlays:
            overlay.unmount()
            Path(overlay.root).rmdir()
        self.images.close()
        self.namespaces.close()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(engine: str, rootfs: str, folder: str, count: str) -> int:
    become_subreaper()
    enter_mounts_without(hybrid_mount())
    loop = Loop(engine, rootfs, Path(folder))
    try:
        for number in range(int(count)):
            loop.lay_out(number)
        loop.make_plain()
        found = [loop.run(_WITH_CONFIG, int(count)), loop.run(_PLAIN, int(count))]
    finally:
        loop.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
