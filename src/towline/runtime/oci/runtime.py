"""The ``oci`` runtime: containers by crun or runc (the engine), on an overlay over their unpacked image.

A start is ``crun run --detach``: it sets all up and ends, and the container's first process becomes
a child of the supervisor, which is a subreaper. What a container leaves is taken away here without
the engine wherever nothing of it lives: that takes a fifth of the time of ``crun delete``.

    plan.directory/       config.json  pid  engine.log  upper/ work/ (the overlay's)
    /run/towline-roots/…  where it is mounted, and the node's folders in it
    NODE_DIR/crun/        the engine's own state of each container
    /towline/…            its cgroup in every hierarchy, see ``cgroups``
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from towline.runtime.cgroups import Cgroups, cgroup_name, find_cgroups
from towline.runtime.linux.owning import own, own_all
from towline.runtime.linux.trees import NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY
from towline.runtime.oci import disk
from towline.runtime.oci.binds import BindMount, Owner, show, show_system
from towline.runtime.oci.config import build_config, shows_machines_sysfs
from towline.runtime.oci.engine import ENGINES, LOG, Engine
from towline.runtime.oci.faults import has_failed_to_execute, not_executed, start_failure
from towline.runtime.oci.ids import Namespaces
from towline.runtime.oci.overlay import MappedImages, Overlay, overlay_of
from towline.runtime.oci.spec import OUT_TARGET, OciData, read_data
from towline.runtime.port import Launched, Plan, StartFailed, Usage
from towline.runtime.spawning import DEFAULT_PATH, null_device, spawn

_LEAST_OOM_SCORE = 500  # where the machine itself runs out of memory, a container goes before our processes
_ADOPTION_LOOKS = 100
_ADOPTION_LOOK_S = 0.0002
_QUICK_ENTRIES = 1000
_HAND_OVER = 'chown -Rh "$1" -- "$2"; shift 2; exec "$@"'
_DELETE = """
directory=$1
shift
"$@"
exec rm -rf --one-file-system -- "$directory/upper" "$directory/work"
"""


class OciRuntime:
    """``evidence`` is set by the supervisor before each launch; see ``spawning``."""

    name = "oci"

    def __init__(self, node_dir: str) -> None:
        self.evidence: str | None = None
        self._node_dir = node_dir
        self._namespaces = Namespaces()
        self._images = MappedImages(self._namespaces)
        self._launched: set[str] = set()

    @cached_property
    def _cgroups(self) -> Cgroups:
        return find_cgroups()

    @cached_property
    def _oom_score(self) -> int:
        return max(_LEAST_OOM_SCORE, int(Path("/proc/self/oom_score_adj").read_text()))

    def _name(self, plan: Plan) -> str:
        return cgroup_name(plan.attempt, self._node_dir)

    def limits(self, plan: Plan, pid: int) -> dict[str, int]:
        """Those that hold for a container with this first process, as in ``Cgroups.limits``."""
        return self._cgroups.limits(self._name(plan))

    def _overlay(self, plan: Plan) -> Overlay:
        return overlay_of(plan.directory, self._name(plan))

    def _state(self, engine: Engine) -> str:
        return f"{self._node_dir}/{engine.name}"

    # --- start ------------------------------------------------------------------------------------
    def launch(self, plan: Plan, stdout: int, stderr: int) -> Launched:
        data = read_data(plan)
        if self._is_begun(plan):  # a supervisor died before it came to spawn
            self.cleanup(plan)
            Path(plan.directory).mkdir(exist_ok=True)
        self._launched.add(plan.attempt)
        try:
            pid = self._start(plan, data, engine_of(data), (stdout, stderr))
        except (OSError, StartFailed) as error:
            self.cleanup(plan)
            if isinstance(error, StartFailed):
                raise
            where = f" ({error.filename})" if error.filename else ""
            raise StartFailed(f"The container's folders cannot be made: {error.strerror}{where}.") from error
        return Launched(pid=pid, direct=False)

    def _start(self, plan: Plan, data: OciData, engine: Engine, output: tuple[int, int]) -> int:
        """The pid of the engine. Raises OSError, StartFailed."""
        program = engine.program()
        self._lay_out(plan, data)
        argv = engine.run_argv(self._state(engine), plan.attempt, plan.directory)
        null = null_device(plan.directory)
        try:
            return spawn(program, argv, starter_env(), *output, self.evidence, session=False, stdin=null)
        finally:
            os.close(null)

    def _is_begun(self, plan: Plan) -> bool:
        places = (self._overlay(plan).upper, f"{plan.directory}/disk.ext4")
        return any(map(os.path.lexists, places))

    def _lay_out(self, plan: Plan, data: OciData) -> None:
        overlay = self._overlay(plan)
        write_config(
            plan, build_config(plan, data, overlay.root, self._cgroups, self._name(plan), self._oom_score)
        )
        if data.disk is None:
            overlay.mount(data.rootfs, data.ids, self._images)
        else:
            with disk.mounted(data.disk, plan.directory) as place:
                overlay_of(place, self._name(plan)).mount(data.rootfs, data.ids, self._images)
        self._show_folders(plan, data, overlay.root)

    def _show_folders(self, plan: Plan, data: OciData, root: str) -> None:
        ids = None
        first = 0
        if data.ids is not None:
            first = data.ids.first
            ids = self._namespaces.of_folder(data.ids, data.uid, data.gid)
        own(plan.out, *data.writer)
        show_folders(plan, data, root, ids, Owner(first, first, *data.outside))

    def confirm(self, plan: Plan, status: int) -> int:
        pid = read_pid(plan)
        if status == 0 and pid is not None:
            _await_adoption(pid)
            return pid
        data = read_data(plan)
        raise start_failure(plan, engine_of(data), self._seen_root(plan, data), status, data.workdir)

    def _seen_root(self, plan: Plan, data: OciData) -> str:
        """Where we can see what is in the container's root."""
        return self._overlay(plan).root

    # --- while it runs ----------------------------------------------------------------------------
    def signal(self, plan: Plan, pid: int, number: int) -> None:
        """The kernel keeps a signal without a handler from the first process of a pid namespace, and
        shells have none for SIGTERM. Then it goes to all the others, as it would from a terminal; a
        first process that is alone ends by SIGKILL, as it would have outside of a container."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL or not _is_deaf(pid, number):
                os.kill(pid, number)
                return
            others = [other for other in self._processes(plan) if other != pid]
            for other in others:
                with suppress(ProcessLookupError):
                    os.kill(other, number)
            if not others:
                os.kill(pid, signal.SIGKILL)

    def measure(self, plan: Plan, executed: bool = True) -> Usage:
        pid = read_pid(plan)
        data = read_data(plan)
        if not executed or (pid is not None and has_failed_to_execute(pid, engine_of(data))):
            raise not_executed(plan, self._seen_root(plan, data), data.workdir)
        return self._usage(plan, data)

    def _usage(self, plan: Plan, data: OciData) -> Usage:
        try:
            usage = self._cgroups.usage(self._name(plan))
        except OSError:
            usage = Usage()
        usage.disk_full = data.disk is not None and disk.is_full(self._overlay(plan).root)
        return usage

    def written(self, plan: Plan) -> tuple[str, ...]:
        """A disk of its own ends by itself."""
        own = read_data(plan).disk is not None
        return (plan.out,) if own else (self._overlay(plan).upper, plan.out)

    def _processes(self, plan: Plan) -> list[int]:
        try:
            return self._cgroups.processes(self._name(plan)) or []
        except OSError:
            return []

    # --- after its end ----------------------------------------------------------------------------
    def cleanup(self, plan: Plan) -> tuple[str, ...] | None:
        if plan.attempt in self._launched:
            self._launched.discard(plan.attempt)
        elif read_pid(plan) is None:  # its starter may live: an earlier supervisor died during the start
            kill_starters(plan.attempt, self._state(self._engine_of(plan)))
        overlay = self._overlay(plan)
        with suppress(OSError):
            overlay.unmount()
        command = self._take_away(plan, overlay)
        return command if self._hand_over(plan) else _handing_over(plan, command)

    def _hand_over(self, plan: Plan) -> bool:
        """Give what is in TOW_OUT to the submitting user; False where that would take long."""
        try:
            data = read_data(plan)
        except StartFailed:
            return True
        return not data.leaves_others or own_all(plan.out, *data.owner, _QUICK_ENTRIES)

    def _take_away(self, plan: Plan, overlay: Overlay) -> tuple[str, ...] | None:
        """What is left to be done by a command."""
        if self._processes(plan) or not self._drop_state(plan):
            return self._delete_argv(plan)
        return None if self._remove(plan, overlay) else ("rm", "-rf", "--one-file-system", "--", *overlay[:2])

    def cleaned(self, plan: Plan) -> None:
        overlay = self._overlay(plan)
        with suppress(OSError):
            overlay.unmount()
        for pid in self._processes(plan):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._drop_state(plan, engine_was_asked=True)
        self._remove(plan, overlay)

    def _drop_state(self, plan: Plan, engine_was_asked: bool = False) -> bool:
        """Remove cgroups and the engine's notes; False where that is the engine's to do: a container
        without a cgroup was left half made."""
        state = f"{self._state(self._engine_of(plan))}/{plan.attempt}"
        try:
            made = self._cgroups.processes(self._name(plan)) is not None
            if not made and not engine_was_asked and Path(state).exists():
                return False
            if not self._cgroups.remove(self._name(plan)):
                return False
        except OSError:
            return True  # no cgroups are mounted: nothing was ever started here
        shutil.rmtree(state, ignore_errors=True)
        return True

    def _remove(self, plan: Plan, overlay: Overlay) -> bool:
        """False where the rest would take long."""
        try:
            for name in ("config.json", "pid", LOG):
                Path(plan.directory, name).unlink(missing_ok=True)
            if plan.disk_bytes:
                disk.remove(plan.directory)
            if not overlay.remove():
                return False
            Path(plan.directory).rmdir()
        except FileNotFoundError:
            with suppress(OSError):
                Path(plan.directory).rmdir()
        except OSError:
            return False
        return True

    def _delete_argv(self, plan: Plan) -> tuple[str, ...]:
        engine = self._engine_of(plan)
        delete = engine.delete_argv(self._state(engine), plan.attempt)
        return ("sh", "-c", _DELETE, "sh", plan.directory, *delete)

    def _engine_of(self, plan: Plan) -> Engine:
        """Also for a plan that is no use any more: what it left is still to be taken away."""
        return ENGINES.get(str(plan.runtime_data.get("engine")), ENGINES["crun"])


def _handing_over(plan: Plan, command: tuple[str, ...] | None) -> tuple[str, ...]:
    """A command that gives TOW_OUT to the submitting user before the other one."""
    owner = "{}:{}".format(*read_data(plan).owner)
    return ("sh", "-c", _HAND_OVER, "sh", owner, plan.out, *(command or ("true",)))


def show_folders(plan: Plan, data: OciData, root: str, ids: int | None, owner: Owner) -> None:
    """What is deeper in the tree comes later, so that it is not hidden by what is above it. Raises OSError,
    StartFailed."""
    if shows_machines_sysfs(data):
        flags = READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION
        # What is mounted in it cannot be left out by a user to whom it does not belong.
        show_system(root, "/sys", "/sys", owner, flags, with_all_in_it=data.rootless > 0)
    binds = [BindMount(source, target, True) for source, target in plan.inputs]
    binds += data.mounts
    binds.sort(key=lambda bind: bind.target.rstrip("/").count("/"))
    for bind in (*binds, BindMount(plan.out, OUT_TARGET, False)):
        show(root, bind, ids, owner)


def write_config(plan: Plan, config: dict[str, Any]) -> None:
    """Raises OSError."""
    with open(f"{plan.directory}/config.json", "wb") as file:
        file.write(msgspec.json.encode(config))


def engine_of(data: OciData) -> Engine:
    """Raises StartFailed."""
    engine = ENGINES.get(data.engine)
    if engine is None:
        raise StartFailed(
            f"This build knows no engine {data.engine!r}: set TOWLINE_OCI_RUNTIME to crun or runc."
        )
    return engine


def starter_env() -> dict[str, str]:
    """What an engine gets of our environment."""
    return {"PATH": os.environ.get("PATH", DEFAULT_PATH)}


def read_pid(plan: Plan) -> int | None:
    """The container's first process, as the engine has noted it; None where it has not."""
    try:
        return int(Path(plan.directory, "pid").read_text())
    except (OSError, ValueError):
        return None


def _await_adoption(pid: int) -> None:
    """Until the first process is our child. Its parent so far is the engine's last process, which has done
    its work and ends in a moment, though a little after the one that we spawned."""
    for _ in range(_ADOPTION_LOOKS):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            parent = int(stat[stat.rindex(")") :].split()[2])
            if parent == os.getpid():
                return
            os.waitid(os.P_PID, parent, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:  # it is gone, or the starter was not ours: an earlier supervisor's
            return
        time.sleep(_ADOPTION_LOOK_S)


def _is_deaf(pid: int, number: int) -> bool:
    """Whether the process neither catches nor ignores the signal. Raises ProcessLookupError."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        raise ProcessLookupError from None
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Sig"))
    handled = int(masks["SigCgt"], 16) | int(masks["SigIgn"], 16)
    return not handled & (1 << (number - 1))


def kill_starters(attempt: str, state: str) -> None:
    """Kill each run of an engine for this attempt, so that it makes nothing after the clean-up."""
    wanted = {b"run", os.fsencode(attempt), os.fsencode(state)}
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            pidfd = os.pidfd_open(int(name))
            try:
                argv = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if argv[0].decode(errors="replace") in ENGINES and wanted.issubset(argv):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
