"""Containers of crun and runc under a real supervisor: every end told as it was, and nothing left of it.

TOWLINE_OOMS says how many containers run out of memory (20; `make torture` has 200).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.conformance.runtimes.node import MakePlan, Node, eventually
from tests.conformance.runtimes.oci_case import prepare_oci
from tests.container_host import ISOLATIONS

from towline.core.commands import AttemptUpdate
from towline.model.states import Reason
from towline.runtime.cgroups import cgroup_name, find_cgroups
from towline.runtime.oci.disk import template
from towline.runtime.oci.spec import OciData
from towline.runtime.port import Plan

pytestmark = pytest.mark.containers

OOMS = int(os.environ.get("TOWLINE_OOMS", "20"))
HOG = "x=a; while :; do x=$x$x; done"
SMALL = 24 << 20


@pytest.fixture(scope="module", params=["crun", "runc"])
def make_plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakePlan:
    return prepare_oci(tmp_path_factory.mktemp(request.param), ISOLATIONS[request.param])


@pytest.fixture
def node(make_plan: MakePlan) -> Iterator[Node]:
    node = Node(make_plan)
    node.connect()
    yield node
    node.close()


def changed(plan: Plan, **fields: Any) -> Plan:
    """The plan with other fields of its container."""
    data = structs.replace(msgspec.convert(plan.runtime_data, OciData), **fields)
    return structs.replace(plan, runtime_data=msgspec.to_builtins(data))


def run(node: Node, plan: Plan) -> AttemptUpdate:
    node.run(plan)
    return node.ended(plan)


# --- memory ------------------------------------------------------------------------------------------


def test_a_program_that_needs_too_much_memory(node: Node) -> None:
    update = run(node, node.plan(HOG, memory_bytes=SMALL))
    assert (update.reason, update.exit_code, update.signal) == (Reason.OOM_KILLED, None, 9)
    assert update.peak_memory_bytes is not None
    assert SMALL * 0.8 <= update.peak_memory_bytes <= SMALL
    assert update.message is not None
    assert "(limit 24 MiB, peak " in update.message
    assert "raise resources.memory" in update.message


def test_a_killed_child_of_a_failure_is_the_cause(node: Node) -> None:
    update = run(node, node.plan(f"sh -c '{HOG}'; exit 3", memory_bytes=SMALL))
    assert (update.reason, update.exit_code) == (Reason.OOM_KILLED, 3)


def test_a_killed_child_of_a_success_is_a_warning(node: Node) -> None:
    update = run(node, node.plan(f"sh -c '{HOG}'; exit 0", memory_bytes=SMALL))
    assert (update.reason, update.exit_code) == (Reason.EXITED, 0)
    assert update.message is not None
    assert "lack of memory, though it ended well" in update.message


def test_every_end_for_lack_of_memory_is_told_as_such(node: Node) -> None:
    """Main processes, children, and others that only come near their limit, four at a time."""
    kinds = {
        HOG: (Reason.OOM_KILLED, None, 9),
        f"sh -c '{HOG}'; exit 7": (Reason.OOM_KILLED, 7, None),
        f"sh -c '{HOG}'; true": (Reason.EXITED, 0, None),
        "head -c 4000000 /dev/zero | tail -c 1 > /dev/null; exit 7": (Reason.EXITED, 7, None),
        "kill -9 $$; sleep 1; exit 9": (Reason.EXITED, 9, None),
    }
    plans = [
        (node.plan(script, memory_bytes=SMALL), wanted)
        for number in range(OOMS)
        for script, wanted in [list(kinds.items())[number % len(kinds)]]
    ]
    for at in range(0, len(plans), 4):
        node.run(*(plan for plan, _ in plans[at : at + 4]))
        for plan, wanted in plans[at : at + 4]:
            update = node.ended(plan)
            assert (update.reason, update.exit_code, update.signal) == wanted, (plan.argv, update)


def test_what_was_used_is_always_told(node: Node) -> None:
    update = run(node, node.plan("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 1"))
    assert update.peak_memory_bytes
    assert update.cpu_ms


# --- disk ------------------------------------------------------------------------------------------


def with_disk(plan: Plan, folder: Path, size_bytes: int) -> Plan:
    return structs.replace(changed(plan, disk=template(folder, size_bytes)), disk_bytes=size_bytes)


def test_a_disk_of_its_own_ends(node: Node, tmp_path: Path) -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=64; echo $?; exit 4"
    plan = with_disk(node.plan(script), tmp_path, 16 << 20)
    update = run(node, plan)
    assert (update.reason, update.exit_code) == (Reason.DISK_FULL, 4)
    assert update.message == "It wrote more than its disk of 16 MiB: raise resources.disk."
    assert b"No space left on device" in node.output(plan, "stderr")
    eventually(lambda: devices_of(plan) == [], "its block device stays")


def test_a_disk_with_room_is_no_matter(node: Node, tmp_path: Path) -> None:
    plan = with_disk(
        node.plan("dd if=/dev/zero of=/big bs=1M count=4 && echo kept > $TOW_OUT/x"), tmp_path, 32 << 20
    )
    update = run(node, plan)
    assert (update.reason, update.exit_code, update.message) == (Reason.EXITED, 0, None)
    assert Path(plan.out, "x").read_text() == "kept\n"


def devices_of(plan: Plan) -> list[str]:
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [str(file) for file in backing if plan.attempt in _text(file)]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("where", ["$TOW_OUT/big", "/big"])
def test_where_it_has_no_disk_of_its_own_it_is_watched(node: Node, where: str) -> None:
    plan = node.plan(f"dd if=/dev/zero of={where} bs=1M count=32; sleep 1000", disk_bytes=8 << 20)
    update = run(node, plan)
    assert (update.reason, update.signal) == (Reason.DISK_FULL, 9)
    assert update.message == "It wrote more than its disk of 8 MiB: raise resources.disk."


# --- causes and hints ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("nosuch",), "There is no program 'nosuch' in the image"),
        (("/bin/nosuch",), "There is no file '/bin/nosuch' in the image"),
        (("/etc/passwd",), "'/etc/passwd' in the image is not executable: chmod +x"),
        (("/etc",), "'/etc' in the image is no program, it is a folder"),
    ],
)
def test_a_command_that_cannot_be_started(node: Node, argv: tuple[str, ...], says: str) -> None:
    update = run(node, node.plan("", argv=argv))
    assert (update.reason, update.exit_code) == (Reason.START_FAILED, None)
    assert update.message is not None
    assert says in update.message


def test_a_workdir_that_cannot_be_entered(node: Node) -> None:
    update = run(node, changed(node.plan("true"), workdir="/etc/passwd"))
    assert update.reason == Reason.START_FAILED
    assert update.message is not None
    assert "workdir '/etc/passwd' cannot be entered in the image: " in update.message


def test_a_network_that_was_not_asked_for_is_hinted_at(node: Node) -> None:
    update = run(node, node.plan("nc -w 1 192.0.2.1 80"))
    assert (update.reason, update.exit_code) == (Reason.EXITED, 1)
    assert update.message is not None
    assert "add 'network: host'" in update.message


# --- output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, 1000])
def test_streams_may_be_reopened_by_any_user(node: Node, uid: int) -> None:
    script = "echo one >&2; echo two > /dev/stderr; echo three >&2; echo four > /dev/stdout; id -u"
    plan = changed(node.plan(script), uid=uid, gid=uid)
    assert run(node, plan).exit_code == 0
    assert node.output(plan, "stderr") == b"one\ntwo\nthree\n"
    assert node.output(plan) == b"four\n%d\n" % uid


def test_one_line_of_ten_megabytes(node: Node) -> None:
    plan = node.plan("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert run(node, plan).exit_code == 0
    assert node.output(plan) == b"x" * 10_000_000 + b"\nend\n"


# --- what is left ------------------------------------------------------------------------------------


def test_artifacts_belong_to_the_submitting_user(node: Node) -> None:
    """Whoever wrote them inside."""
    script = "cd $TOW_OUT; echo a > a; mkdir d; echo b > d/b; chown 1234 d/b; ls -ln d"
    plan = changed(node.plan(script), capabilities=("CHOWN",))
    assert run(node, plan).exit_code == 0
    assert b" 1234 " in node.output(plan)
    for name in ("", "a", "d", "d/b"):
        eventually(lambda name=name: Path(plan.out, name).stat().st_uid == 0, f"{name} is not ours")


def test_a_user_of_the_image_writes_artifacts(node: Node) -> None:
    plan = changed(node.plan("id -u; echo a > $TOW_OUT/a; stat -c %u $TOW_OUT/a"), uid=1000, gid=1000)
    assert run(node, plan).exit_code == 0
    assert node.output(plan) == b"1000\n1000\n"
    assert Path(plan.out, "a").stat().st_uid == 0


def test_nothing_of_a_container_is_left(node: Node, tmp_path: Path) -> None:
    """Mounts, cgroups, devices, the engine's notes, folders: for one that ended by itself and one killed."""
    plans = [node.plan("echo x > /file"), node.plan("mkdir /m; sleep 1000")]
    plans = [with_disk(plan, tmp_path, 16 << 20) for plan in plans]
    node.run(*plans)
    node.until(lambda: node.state(plans[1]) == "running")
    node.stop(plans[1], grace_ms=0)
    for plan in plans:
        node.ended(plan)
        eventually(lambda plan=plan: traces(node, plan) == [], f"it leaves {traces(node, plan)}")


def traces(node: Node, plan: Plan) -> list[str]:
    engine = str(plan.runtime_data["engine"])
    name = cgroup_name(plan.attempt, node.dir)
    places = [plan.directory, f"{node.dir}/{engine}/{plan.attempt}", f"/run/towline-roots/{name}"]
    places += find_cgroups().folders(name)
    mounts = Path(f"/proc/{node.supervisor}/mountinfo").read_text().splitlines()
    mounted = [line for line in mounts if name in line]
    return [place for place in places if Path(place).exists()] + mounted + devices_of(plan)
