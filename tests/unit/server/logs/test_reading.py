"""Output from the server's segments as far as it was shipped, then from the node."""

from __future__ import annotations

from tests.conformance.stores import rows
from tests.unit.server.logs.kept import Kept

from towline.core.rows import AttemptRow
from towline.errors import Unavailable
from towline.logs.archive import Archive
from towline.server.logs.reading import Output
from towline.server.output import Merger, follow
from towline.wire.messages import LogChunk

A = "job1-0-0-1"


class Node:
    """Has a text as stdout; None: it is away. ``asked`` are the offsets that it was asked for."""

    def __init__(self, text: bytes | None, *, live: bool = True) -> None:
        self.text = text
        self.live = live
        self.state = "running"
        self.asked: list[int] = []

    async def read(self, node: str, attempt: str, stream: str, offset: int, limit: int) -> LogChunk:
        assert (node, attempt) == ("node-1", A)
        if self.text is None:
            raise Unavailable("away")
        text = self.text if stream == "stdout" else b""
        begin = max(0, len(text) + offset) if offset < 0 else offset
        self.asked.append(begin)
        some = text[begin : begin + limit]
        end = not self.live and begin + len(some) >= len(text)
        return LogChunk(request=1, offset=begin, data=some, index=(), end=end)

    async def row(self) -> AttemptRow:
        return rows.attempt("job1", 0, state=self.state)


async def shown(
    archive: Archive | None, node: Node, *, waits: bool = False, tail: int | None = None
) -> tuple[bytes, list[str]]:
    async def name() -> str:
        return "n1"

    output = Output(A, "node-1", archive, node.read, node.row, name, follow=waits)
    merger = Merger(["stdout", "stderr"], output.read)
    first = await merger.start(tail)
    found = [piece async for pieces in follow(merger, first, forever=waits) for piece in pieces]
    return b"".join(piece.data for piece in found), await output.notes()


async def test_the_node_is_asked_only_for_what_was_not_shipped(kept: Kept) -> None:
    kept.put(A, 0, b"shipped ")
    node = Node(b"shipped not yet")
    assert await shown(kept, node) == (b"shipped not yet", [])
    assert min(offset for offset in node.asked if offset) == 8


async def test_what_is_complete_needs_no_node(kept: Kept) -> None:
    kept.put(A, 0, b"one\ntwo\n", end=True)
    kept.put(A, 0, b"", stream=1, end=True)
    node = Node(b"")
    assert await shown(kept, node, waits=True) == (b"one\ntwo\n", [])
    assert await shown(kept, node, waits=True, tail=1) == (b"two\n", [])
    assert node.asked == []


async def test_what_is_shipped_and_removed_while_it_is_read_is_found(kept: Kept) -> None:
    class Shipping(Node):
        async def read(self, node: str, attempt: str, stream: str, offset: int, limit: int) -> LogChunk:
            if kept.extent(A).sizes == (0, 0):
                kept.put(A, 0, b"all of it", end=True)
                kept.put(A, 0, b"", stream=1, end=True)
            return await super().read(node, attempt, stream, offset, limit)

    assert await shown(kept, Shipping(b"", live=False)) == (b"all of it", [])
    assert await shown(kept, Shipping(b"", live=False), tail=1) == (b"all of it", [])


async def test_without_the_node_what_was_shipped_is_shown_and_how_far_it_goes(kept: Kept) -> None:
    kept.put(A, 0, b"first")
    kept.put(A, 5, b"second")
    node = Node(None)
    says = "11 bytes of stdout (until 1970-01-01T00:00:01.005Z) had reached the server"
    data, (note,) = await shown(kept, node)
    assert data == b"firstsecond"
    assert note == f"Node n1 is not connected: {says}, and what came after is not shown."
    node.state = "lost"
    data, (note,) = await shown(kept, node, waits=True, tail=1)
    assert data == b"firstsecond"
    assert note.startswith(f"Node n1 is gone: {says}")


async def test_a_node_that_took_everything_with_it_is_named(kept: Kept) -> None:
    node = Node(None)
    node.state = "lost"
    data, (note,) = await shown(kept, node, waits=True)
    assert data == b""
    assert note == "Node n1 is gone: nothing that this attempt may have printed had reached the server."


async def test_a_follower_waits_for_a_node_that_is_away_for_a_while(kept: Kept) -> None:
    kept.put(A, 0, b"before ")

    class Back(Node):
        async def row(self) -> AttemptRow:
            self.text, self.live = b"before after", False
            return await super().row()

    assert await shown(kept, Back(None), waits=True) == (b"before after", [])


async def test_what_had_to_make_room_is_told_of(kept: Kept) -> None:
    kept.put(A, 0, b"x" * 1_000)
    kept.put(A, 1_000, b"", end=True)
    kept.put(A, 0, b"", stream=1, end=True)
    kept.drop_segment(1)
    data, (note,) = await shown(kept, Node(b""), waits=True)
    assert data == b""
    assert note == "Some of this output was removed from the server to make room for newer."


async def test_an_attempt_that_never_started_says_why() -> None:
    class Failed(Node):
        async def row(self) -> AttemptRow:
            return rows.attempt("job1", 0, state="finished", message="There is no image x:1.")

    says = "It never started on node n1: There is no image x:1."
    assert await shown(None, Failed(b"", live=False)) == (b"", [says])
    assert await shown(None, Failed(b"[towline: it never started]", live=False)) == (
        b"[towline: it never started]",
        [],
    )


async def test_on_one_machine_the_node_alone_is_asked() -> None:
    assert await shown(None, Node(b"text")) == (b"text", [])
