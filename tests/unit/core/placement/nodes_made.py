"""Nodes and shapes for tests of placement, and what fits by a plain reading of the rules."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from towline.core.entries import Node
from towline.core.placement.checking import check, check_candidates, oversubscribed
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.ledger import parse_devices
from towline.core.placement.nodes import Nodes
from towline.core.placement.shape import Shape, shape_of
from towline.core.rows import GpuDevice, NodeRow
from towline.model.job import Condition, Gpu, Preference, Resources, TaskSpec

GIB = 2**30


def row(name: str = "n0", **more: Any) -> NodeRow:
    fields: dict[str, Any] = {
        "id": f"id-{name}",
        "name": name,
        "instance": "i",
        "state": "ready",
        "cpu_milli": 8000,
        "memory_bytes": 32 * GIB,
        "pids": 1000,
        "labels": {},
        "runtimes": {"process": None, "oci": "crun is not installed"},
    }
    return NodeRow(**(fields | more))


def gpus(*models: str, memory_bytes: int = 16 * GIB) -> tuple[GpuDevice, ...]:
    """Devices 0, 1, …; a text with a colon is ``MODEL:PROFILE``, a MIG slice."""
    found: list[GpuDevice] = []
    for at, text in enumerate(models):
        model, colon, profile = text.partition(":")
        slice_ = profile if colon else None
        found.append(GpuDevice(id=str(at), model=model, memory_bytes=memory_bytes, slice=slice_))
    return tuple(found)


def nodes_of(*rows: NodeRow, rules: Rules | None = None) -> Nodes:
    nodes = Nodes(rules)
    for at, each in enumerate(rows):
        nodes.add(Node(row=each, column=at, connected=True, heard_at=0))
    return nodes


def shape(
    cpu_milli: int = 1000,
    memory_bytes: int = GIB,
    pids: int = 10,
    disk_bytes: int | None = None,
    gpu: Gpu | None = None,
    runtime: str = "process",
    **fields: Any,
) -> Shape:
    asked = Resources(
        cpu_milli=cpu_milli, memory_bytes=memory_bytes, pids=pids, disk_bytes=disk_bytes, gpu=gpu
    )
    return shape_of(TaskSpec(runtime=runtime, resources=asked, **fields))  # type: ignore[arg-type]


class Ledgers:
    """Nodes, and what was placed on them: every check after every step."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.held: list[tuple[int, Shape, str | None]] = []

    def place(self, asked: Shape, count: int) -> int:
        """Place up to so many elements as the pass does; returns how many there was room for."""
        left = count
        while left and (found := self.nodes.room(asked, left, self.active(asked))):
            for column, room in found:
                some = min(left, room)
                for devices in self.nodes.take(column, asked, some):
                    self.held.append((column, asked, devices))
                left -= some
        return count - left

    def active(self, asked: Shape) -> dict[int, int]:
        found: dict[int, int] = {}
        for column, other, _ in self.held:
            if other is asked:
                found[column] = found.get(column, 0) + 1
        return found

    def end(self, at: int) -> None:
        self.nodes.give(*self.held.pop(at % len(self.held)))

    def check(self) -> None:
        for column in range(self.nodes.n):
            mine = [(asked, devices) for at, asked, devices in self.held if at == column]
            assert check(self.nodes, column, mine) is None
            assert oversubscribed(self.nodes, column) is None

    def fits(self, asked: Shape, column: int) -> int:
        """How many elements fit on a node, read from the rows alone."""
        node = self.nodes.entries[column]
        row = node.row
        if row.state != "ready" or not node.connected or row.runtimes.get(asked.runtime, "") is not None:
            return 0
        if not set(asked.require) <= set(row.protects.get(asked.runtime, ())):
            return 0
        if any(
            taint.split("=")[0] not in asked.tolerate and taint not in asked.tolerate for taint in row.taints
        ):
            return 0
        if not all(met(each, row) for each in asked.where):
            return 0
        mine = [other for at, other, _ in self.held if at == column]
        rooms = [
            (row.cpu_milli - sum(o.cpu_milli for o in mine)) // asked.cpu_milli,
            (row.memory_bytes - sum(o.memory_bytes for o in mine)) // asked.memory_bytes,
            (row.pids - sum(o.pids for o in mine)) // asked.pids,
        ]
        if row.disk_bytes and asked.disk_bytes:
            rooms.append((row.disk_bytes - sum(o.disk_bytes for o in mine)) // asked.disk_bytes)
        if asked.gpu is not None:
            rooms.append(self._fits_devices(asked, asked.gpu, column))
        return max(0, min(rooms))

    def _fits_devices(self, asked: Shape, gpu: Gpu, column: int) -> int:
        used: dict[str, int] = {}
        for at, _, devices in self.held:
            for name, milli in parse_devices(devices) if at == column and devices else ():
                used[name] = used.get(name, 0) + milli
        free = [
            1000 - used.get(device.id, 0)
            for device in self.nodes.entries[column].row.gpus
            if device.slice == gpu.slice
            and (not gpu.model or device.model in gpu.model)
            and device.memory_bytes >= (gpu.memory_bytes or 0)
        ]
        if gpu.milli < 1000:
            return sum(milli // gpu.milli for milli in free)
        return sum(milli == 1000 for milli in free) // gpu.count

    def check_room(self, asked: Shape) -> None:
        """``room`` and ``misfits`` say the same as the rows."""
        fits = {column: self.fits(asked, column) for column in range(self.nodes.n)}
        expected = {column: count for column, count in fits.items() if count}
        found = self.nodes.room(asked)
        assert dict(found) == expected
        assert len(found) == len(expected)
        assert check_candidates(self.nodes, asked) is None
        if expected and asked.spread is None:
            assert self.nodes.room(asked, 1)[0][0] == found[0][0]
        assert sum(misfit.nodes for misfit in self.nodes.misfits(asked)) == self.nodes.n - len(expected)
        for column, count in fits.items():
            assert (self.nodes.first_misfit(asked, column) is None) == (count > 0)


def met(condition: Condition, row: NodeRow) -> bool:
    value = row.name if condition.key == "node" else row.labels.get(condition.key)
    if condition.op == "exists":
        return value is not None
    if condition.op == "absent":
        return value is None
    if condition.op in ("=", "in"):
        return value in condition.values
    if condition.op in ("!=", "not in"):
        return value not in condition.values
    if value is None or not value.isdecimal():
        return False
    asked = int(condition.values[0])
    return {
        "<": int(value) < asked,
        "<=": int(value) <= asked,
        ">": int(value) > asked,
        ">=": int(value) >= asked,
    }[condition.op]


# --- strategies ---------------------------------------------------------------------------------------
_values = st.sampled_from(["a", "b", "8", "64"])
labels = st.dictionaries(st.sampled_from(["zone", "ram"]), _values, max_size=2)
conditions = st.builds(
    lambda key, op, values: Condition(
        key=key,
        op=op,
        values=() if op in ("exists", "absent") else tuple(values) if "in" in op else (values[0],),
    ),
    st.sampled_from(["zone", "ram", "node"]),
    st.sampled_from(["=", "!=", "in", "not in", "exists", "absent"]),
    st.lists(st.sampled_from(["a", "b", "n0", "64"]), min_size=1, max_size=2),
) | st.builds(
    lambda op, value: Condition(key="ram", op=op, values=(value,)),
    st.sampled_from(["<", "<=", ">", ">="]),
    st.sampled_from(["8", "20"]),
)
gpus_asked = st.none() | st.builds(
    lambda count, milli, model, memory, profile: Gpu(
        count=count if milli == 1000 else 1,
        milli=1000 if profile else milli,
        model=tuple(sorted(model)),
        memory_bytes=memory,
        slice=profile,
    ),
    st.integers(1, 3),
    st.sampled_from([1000, 1000, 500, 300]),
    st.sets(st.sampled_from(["A100", "T4"]), max_size=1),
    st.sampled_from([None, None, 20 * GIB]),
    st.sampled_from([None, None, "1g.5gb"]),
)
shapes = st.builds(
    shape,
    cpu_milli=st.sampled_from([100, 1000, 2500]),
    memory_bytes=st.sampled_from([2**20, GIB, 5 * GIB]),
    pids=st.sampled_from([1, 100]),
    disk_bytes=st.sampled_from([None, None, GIB]),
    gpu=gpus_asked,
    runtime=st.sampled_from(["process", "process", "oci"]),
    where=st.lists(conditions, max_size=1).map(tuple),
    prefer=st.sampled_from([(), (Preference(key="zone", values=("a",), weight=3),)]),
    tolerate=st.sampled_from([(), ("gpu",), ("gpu=yes",)]),
    require=st.sampled_from([(), (), ("userns",)]),
    spread=st.sampled_from([None, None, "zone"]),
)
devices = st.lists(
    st.builds(
        lambda model, memory, profile: (model, memory, profile),
        st.sampled_from(["A100", "T4"]),
        st.sampled_from([16 * GIB, 40 * GIB]),
        st.sampled_from([None, None, None, "1g.5gb"]),
    ),
    max_size=4,
).map(
    lambda found: tuple(
        GpuDevice(id=str(at), model=model, memory_bytes=memory, slice=profile)
        for at, (model, memory, profile) in enumerate(found)
    )
)
rows = st.builds(
    row,
    cpu_milli=st.sampled_from([2000, 8000]),
    memory_bytes=st.sampled_from([4 * GIB, 32 * GIB]),
    pids=st.sampled_from([50, 1000]),
    disk_bytes=st.sampled_from([0, 2 * GIB]),
    labels=labels,
    gpus=devices,
    taints=st.sampled_from([(), (), ("gpu",), ("gpu=yes",), ("old", "gpu=no")]),
    runtimes=st.sampled_from(
        [{"process": None}, {"process": None, "oci": None}, {"process": "no", "oci": None}]
    ),
    protects=st.sampled_from([{}, {"oci": ("userns",), "process": ()}, {"process": ("userns",)}]),
    state=st.sampled_from(["ready", "ready", "ready", "lost"]),
)
