"""The gateway: agents' links on one side, the leader on the other.

A link's first frame is Hello, which becomes a NodeUp; Welcome and orders leave after its commit.
Each frame's reports are one command. Where the leader steps down all links close: the agents come
back with all that they know, and the next leader goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Protocol, cast

import msgspec
import structlog

from towline.build import build
from towline.core.commands import AttemptUpdate, LeaseShortened, Maintain, NodeDown, NodeUp, Order
from towline.core.commands import Report as ReportCommand
from towline.core.lease import short_for
from towline.core.pool.membership import is_outdated
from towline.core.rows import Changes, NodeRow, PoolSnapshot, SpecRow, TaskRow
from towline.errors import NodeError, NoNode, NotFound, Unavailable
from towline.server.events import Feed
from towline.server.leader import Leader
from towline.server.link import Further, Link, Socket, not_connected, task_info
from towline.server.logs.receiving import Receiving
from towline.server.plausible import implausible, node_row
from towline.server.settings import Settings
from towline.wire.artifacts import ArtifactsAnswer, ArtifactsCall
from towline.wire.exec import ExecSaid, Open
from towline.wire.messages import (
    Ack,
    FromAgent,
    Heartbeat,
    HeartbeatAnswer,
    Hello,
    ImageAnswer,
    ImageCall,
    LogChunk,
    Maintenance,
    Refused,
    Report,
    TaskInfo,
    Welcome,
    decode_from_agent,
    encode,
)
from towline.wire.pulls import Pull, Pulls
from towline.wire.shipping import LogOpen, LogPart
from towline.wire.usage import ReadUsage, UsageAnswer
from towline.wire.versions import LEASED, OLDEST, agreed, apart

NOT_LEADING_RETRY_MS = 250
MOVED_RETRY_MS = 1_000
"""For an agent that does not know how to go to where it is sent."""
NO_LEADER_RETRY_MS = 1_000
"""At most: a server that has been stopped is followed at once."""
HELLO_TIMEOUT_S = 30.0
"""As long as an agent waits for its link to open: where thousands come at once, each waits for all."""
USAGE_TIMEOUT_S = 5.0


class Peers(Protocol):
    """What a gateway knows of other servers."""

    def urls(self) -> tuple[str, ...]: ...
    def leader(self) -> tuple[str, int]: ...
    def no_leader_ms(self) -> int: ...
    async def look(self) -> None: ...


class Gateway:
    """Holds the link of each node; hears the leader's commits (it is its Audience)."""

    def __init__(
        self,
        feed: Feed,
        settings: Settings,
        login_for: Callable[[str], tuple[str, str, str] | None] = lambda _: None,
        secrets_for: Callable[[str, Mapping[str, str]], dict[str, bytes]] = lambda *_: {},
        receiving: Receiving | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._peers = peers
        """The other servers of the store; None: there are none."""
        self._feed = feed
        self._receiving = receiving
        """What members of the cluster ship of their output; None: it stays on the node."""
        self._login_for = login_for
        """(registry, user, password) for an image's name."""
        self._secrets_for = secrets_for
        """Values, by files, for a namespace and files by its secrets' names."""
        self._pinned: dict[str, dict[int, str]] = {}
        """By job and task, the digest of the image that its elements run."""
        self._read_log_timeout_s = settings.read_log_timeout_s
        self._heartbeat_ms = settings.heartbeat_ms
        self._lease = settings.lease if settings.listen else None
        self._leader: Leader | None = None
        self._links: dict[str, Link] = {}
        self._newest: dict[str, Link] = {}
        """Each node's latest link from its Hello on, joined or not: only its end is the node's."""
        self._said: dict[str, NodeRow] = {}
        """What each node has said last, also where that link has ended since."""
        self._specs: dict[str, SpecRow] = {}
        self._namespaces: dict[str, str] = {}
        """By job, as ``_specs``."""
        self._open = 0
        self._told_of = 0
        self._ending = False
        self._log = structlog.get_logger("gateway")
        self.changed = asyncio.Event()
        """Set whenever a link opens or closes."""

    def attach(self, leader: Leader) -> None:
        """The leader and its audience know each other; this closes the circle."""
        self._leader = leader

    @property
    def connected_nodes(self) -> list[str]:
        return list(self._links)

    @property
    def open_links(self) -> int:
        """Connections of agents, welcomed or not."""
        return self._open

    # --- the leader's audience ----------------------------------------------------------------------
    def leading(self, term: int, snapshot: PoolSnapshot) -> None:
        self._specs = {row.job: row for row in snapshot.specs}
        self._namespaces = {row.id: row.namespace for row in snapshot.jobs}
        self._pinned.clear()
        self._pin(snapshot.tasks)
        self._feed.restart(snapshot.event_no)

    def committed(self, changes: Changes, orders: list[Order]) -> None:
        for spec in changes.specs:
            self._specs[spec.job] = spec
        self._namespaces |= {job.id: job.namespace for job in changes.jobs}
        self._pin(changes.tasks)
        if orders:
            self._send(orders)
        self._feed.publish(changes.events)
        for job in changes.jobs:
            if job.ended_at is not None:
                self._specs.pop(job.id, None)
                self._namespaces.pop(job.id, None)
                self._pinned.pop(job.id, None)
                for link in self._links.values():
                    link.forget_job(job.id)

    def stepped_down(self) -> None:
        for link in self._links.values():
            if self._ending and self._leader is not None:
                link.goodbye(self._leader.term)
            elif self._peers is not None:  # without a word, it would be away for longer
                link.say(self._not_leading())
            link.close()
        self._links.clear()
        self._specs.clear()
        self._namespaces.clear()
        self._pinned.clear()

    def _pin(self, rows: Iterable[TaskRow]) -> None:
        """Note which images tasks are pinned to since now, and tell the nodes that have resolved the
        same name on their own."""
        for row in rows:
            if row.image_digest is None or row.task in self._pinned.get(row.job, ()):
                continue
            self._pinned.setdefault(row.job, {})[row.task] = row.image_digest
            for link in self._links.values():
                link.pin(row.job, row.task, row.image_digest)

    def _describe(self, job: str, position: int) -> TaskInfo | None:
        row = self._specs.get(job)
        if row is None:
            return None
        spec = list(row.spec.tasks.values())[position]
        login = None if spec.image is None else self._login_for(spec.image)
        secrets = self._secrets_for(self._namespaces[job], spec.secrets) if spec.secrets else {}
        return task_info(row, position, self._pinned.get(job, {}).get(position), login, secrets)

    def descriptions_changed(self) -> None:
        """Logins or secrets have: tasks are described anew with their next order."""
        for link in self._links.values():
            link.tell_again()

    def _send(self, orders: list[Order]) -> None:
        """To each node its orders, in their order; a node without a link gets them when it is back."""
        assert self._leader is not None
        by_node: dict[str, list[Order]] = {}
        for order in orders:
            by_node.setdefault(order.node, []).append(order)
        for node, its in by_node.items():
            link = self._links.get(node)
            if link is not None:
                link.order(self._leader.term, its, self._describe)

    # --- links --------------------------------------------------------------------------------------
    async def serve(self, socket: Socket, frames: AsyncIterator[bytes], node: str | None = None) -> None:
        """One agent's connection, from Hello until it closes. ``frames`` ends with the connection.
        ``node``: whom its certificate names, where it has shown one."""
        self._open += 1
        self.changed.set()
        link: Link | None = None
        try:
            hello = await _first(frames)
            await self._know_who_leads()
            refusal = self._refusal(hello, node)
            if refusal is not None:
                await socket.send(encode([refusal]))
                await socket.close()
                return
            hello = cast("Hello", hello)
            link = Link(hello.node, hello.name, hello.instance, socket, agreed(*_spoken(hello)) or OLDEST)
            if self._receiving is not None and node is not None:
                link.shipping = self._receiving.open(hello.node, link.say)
            await self._run(link, hello, frames)
        except (msgspec.DecodeError, TimeoutError) as error:
            self._log.warning("an agent sent what is no message", reason=str(error))
            await socket.close()
        finally:
            self._open -= 1
            if link is not None:
                self._gone(link)
            self.changed.set()

    async def _know_who_leads(self) -> None:
        """A node that comes here has lost its leader, or was sent: what was known may be old."""
        if self._peers is not None and self._leader is not None and not self._leader.leads:
            await self._peers.look()

    def _refusal(self, hello: FromAgent | None, node: str | None) -> Refused | None:
        assert self._leader is not None
        if not isinstance(hello, Hello):
            return Refused(message="the first message has to be Hello")
        oldest, newest = _spoken(hello)
        version = agreed(oldest, newest)
        if version is None or (self._lease is not None and version < LEASED):
            least = OLDEST if self._lease is None else LEASED
            why = apart(f"the agent of node {hello.name}", oldest, newest, "the server", least)
            self._log.warning("an agent is refused", node=hello.node, reason=why)
            return Refused(message=why)
        if node not in (None, hello.node):
            return Refused(message=f"the certificate is that of {node}, not of {hello.node}")
        if (wrong := implausible(hello)) is not None:
            return Refused(message=f"this cannot be a node, since {wrong}")
        if not self._leader.leads:
            return self._not_leading()
        said = self._said.get(hello.node)
        if said is not None and is_outdated(node_row(hello), said):
            return Refused(message="this node has opened another link since", retry_ms=NOT_LEADING_RETRY_MS)
        return None

    def _not_leading(self) -> Refused:
        if self._peers is None:
            return Refused(message="no_leader", retry_ms=NOT_LEADING_RETRY_MS)
        servers = self._peers.urls()
        leader, term = self._peers.leader()
        if leader:
            return Refused(
                message="moved", retry_ms=MOVED_RETRY_MS, leader=leader, term=term, servers=servers
            )
        wait_ms = min(NO_LEADER_RETRY_MS, self._peers.no_leader_ms())
        return Refused(message="no_leader", retry_ms=wait_ms, servers=servers)

    async def _run(self, link: Link, hello: Hello, frames: AsyncIterator[bytes]) -> None:
        """Read and write side by side; the first to end ends the other."""
        assert self._leader is not None
        self._newest[link.node] = link
        row = self._said[link.node] = node_row(hello)
        command = NodeUp(node=row, known=hello.known)
        self._leader.put(command, lambda answer: self._joined(link, answer))
        writer = asyncio.create_task(link.write())
        reader = asyncio.create_task(self._read(link, frames))
        try:
            done, _ = await asyncio.wait([writer, reader], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionError:
            pass
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    def _joined(self, link: Link, answer: object) -> None:
        """NodeUp is committed (or is not): the orders that follow it go down this link."""
        assert self._leader is not None
        if isinstance(answer, Exception):
            link.say(Refused(message=str(answer), retry_ms=NOT_LEADING_RETRY_MS))
            link.close()
            return
        if link.is_gone:
            return  # its end has been told, behind its NodeUp
        if not self._leader.leads:
            link.close()  # Welcome answers a heartbeat too
            return
        older = self._links.get(link.node)
        if older is not None:
            older.close()
        self._links[link.node] = link
        term = self._leader.term
        link.say(
            Welcome(
                version=link.version,
                build=build(),
                term=term,
                heartbeat_ms=self._heartbeat_ms,
                lease=self._lease,
                log_window_bytes=0 if link.shipping is None else link.shipping.window_bytes,
                takes_artifacts=self._receiving is not None,
                servers=() if self._peers is None else self._peers.urls(),
            )
        )
        link.say(Ack(term=term, seq=0, forget=cast("tuple[str, ...]", answer)))
        self._log.info("node is up", node=link.node, name=link.name, instance=link.instance)
        self._look_at_leases()
        self.changed.set()

    def _look_at_leases(self) -> None:
        """Tell of leases that are too short for so many nodes, and again when there are twice as many."""
        if len(self._links) < 2 * self._told_of:
            return
        if (what := self.lease_problem) is not None:
            self._told_of = len(self._links)
            self._log.warning(what)

    @property
    def lease_problem(self) -> str | None:
        """What may end leases of the nodes that are linked now, beside the loss of their links."""
        nodes = len(self._links)
        if self._lease is None or nodes == 0:
            return None
        return short_for(nodes, self._lease.lease_ms, self._heartbeat_ms)

    async def _read(self, link: Link, frames: AsyncIterator[bytes]) -> None:
        async for frame in frames:
            updates: list[AttemptUpdate] = []
            seqs: list[int] = []
            for message in decode_from_agent(frame):
                if isinstance(message, Report):
                    updates += message.updates
                    seqs.append(message.seq)
                elif isinstance(message, Heartbeat):
                    self._heard(link, message)
                elif isinstance(message, LogChunk | UsageAnswer | ArtifactsAnswer):
                    link.answered(message)
                elif isinstance(message, LogOpen | LogPart):
                    if link.shipping is not None:
                        link.shipping.heard(message)
                elif isinstance(message, ImageAnswer):
                    link.image_answer(message)
                elif isinstance(message, Pulls):
                    link.pulls = message.pulls
                elif isinstance(message, ExecSaid):
                    link.exec_said(message)
            if seqs:
                self._report(link, seqs, tuple(updates))

    def _heard(self, link: Link, heartbeat: Heartbeat) -> None:
        assert self._leader is not None
        term = self._leader.heard(link.node)
        if term and heartbeat.lease_term == term and not link.lease_is_short:
            link.lease_is_short = True
            if self._leader.opinion(lambda pool: pool.lease_ms(link.node)):
                self._leader.put(LeaseShortened(node=link.node), _unheard)
        if term:
            link.say(HeartbeatAnswer(term=term, sent_boottime_ms=heartbeat.sent_boottime_ms))
        elif self._leader.ready.is_set() and self._links.get(link.node) is link:
            link.close()  # it was declared lost: it comes back with a Hello

    def _report(self, link: Link, seqs: list[int], updates: tuple[AttemptUpdate, ...]) -> None:
        """One command for all reports of a frame."""
        leader = self._leader
        assert leader is not None

        def answered(answer: object) -> None:
            if isinstance(answer, Exception):
                link.close()  # the agent comes back and says it again
                return
            forget = cast("tuple[str, ...]", answer)
            for seq in seqs:
                link.say(Ack(term=leader.term, seq=seq, forget=forget))
                forget = ()

        leader.put(ReportCommand(node=link.node, updates=updates), answered)

    def _gone(self, link: Link) -> None:
        link.gone()
        if self._links.get(link.node) is link:
            del self._links[link.node]
        # An older link may end late, when the node is up again through a newer one.
        if self._newest.get(link.node) is link:
            del self._newest[link.node]
            assert self._leader is not None
            self._leader.put(NodeDown(node=link.node), _unheard)
            self._log.info("node's link closed", node=link.node, name=link.name)

    def cut_off(self, node: str) -> None:
        """Close the link of a node that is no member any more. Its end is told at once: what the leader is
        asked next finds the node disconnected."""
        link = self._newest.get(node)
        if link is not None:
            link.say(Refused(message="this node has been forgotten: enrol it again with a new join link"))
            link.close()
            self._gone(link)

    async def maintain(self, lease_ms: int) -> None:
        """This server stops, and is the only one: nodes get a longer lease, which lasts until it is back.
        Raises Unavailable."""
        assert self._leader is not None
        nodes = cast("tuple[str, ...]", await self._leader.ask(Maintain(lease_ms=lease_ms)))
        for node in nodes:
            if node in self._links:
                self._links[node].say(Maintenance(term=self._leader.term, lease_ms=lease_ms))

    def end(self) -> None:
        """This server ends: when its leader steps down, the agents are told that it is for good."""
        self._ending = True

    def image_call(self, node: str | None, call: ImageCall) -> AsyncIterator[ImageAnswer]:
        """Have a node do something with its images; None: the only node. Raises NotFound, Unavailable."""
        return self._link_of(node).image_call(call, self._read_log_timeout_s)

    def pulls(self) -> list[tuple[str, str, Pull]]:
        """(id, name, pull) of every image that a connected node is getting for attempts."""
        return [(link.node, link.name, pull) for link in self._links.values() for pull in link.pulls]

    def _link_of(self, node: str | None) -> Link:
        links = [link for link in self._links.values() if node in (None, link.node, link.name)]
        if len(links) == 1:
            return links[0]
        names = ", ".join(sorted(link.name for link in self._links.values())) or "none"
        if node is None and not links:
            raise Unavailable("No node is connected yet: repeat the request.")
        raise NotFound(
            f"Say which node is meant: connected are {names}."
            if node is None or links
            else f"No node {node!r} is connected: connected are {names}."
        )

    def exec_open(self, node: str, attempt: str, wanted: Open) -> tuple[Link, int, Further]:
        """Have a node run a command in an attempt; see ``Link``. Raises Unavailable."""
        link = self._links.get(node)
        if link is None:
            raise not_connected(node)
        return link, *link.exec_open(attempt, wanted)

    async def artifacts(self, node: str, call: ArtifactsCall) -> ArtifactsAnswer:
        """What a node says of artifacts that it keeps. Raises Unavailable."""
        link = self._links.get(node)
        if link is None:
            raise not_connected(node)
        return await link.artifacts(call, self._read_log_timeout_s)

    async def read_log(self, node: str, attempt: str, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of an attempt's output from its node. Raises Unavailable."""
        link = self._links.get(node)
        if link is None:
            raise not_connected(node)
        return await link.read_log(attempt, stream, offset, limit, self._read_log_timeout_s)

    async def read_usage(self, order: ReadUsage) -> list[tuple[str, str, UsageAnswer]]:
        """(id, name, answer) of every connected node; one that does not answer says so in its ``error``.
        Raises NoNode where none is connected."""
        if not self._links:
            raise NoNode("No node is connected yet: repeat the request.")
        links = sorted(self._links.values(), key=lambda link: link.name)
        answers = await asyncio.gather(
            *(link.read_usage(order, USAGE_TIMEOUT_S) for link in links), return_exceptions=True
        )
        found: list[tuple[str, str, UsageAnswer]] = []
        for link, answer in zip(links, answers, strict=True):
            if isinstance(answer, Unavailable | NodeError):
                answer = UsageAnswer(request=0, clock_us=0, error=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            found.append((link.node, link.name, answer))
        return found


async def _first(frames: AsyncIterator[bytes]) -> FromAgent | None:
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        async for frame in frames:
            messages = decode_from_agent(frame)
            return messages[0] if messages else None
    return None


def _spoken(hello: Hello) -> tuple[int, int]:
    """(the oldest, the newest) version that an agent speaks."""
    return hello.version, max(hello.version, hello.newest)


def _unheard(_: object) -> None:
    """The answer of a NodeDown."""
