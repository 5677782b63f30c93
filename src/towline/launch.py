"""The only place that builds the object graph: ``python -m towline.launch server|agent --home HOME``.

Modules are imported where they are needed: what a process does first is done before the rest is
loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towline.build import build
from towline.errors import RequestError, TowlineError, WrongSetting

if TYPE_CHECKING:
    import socket

    from litestar.types import ASGIApp

    from towline.model.job import JobSpec
    from towline.runtime.policy import Policy
    from towline.server.access.cluster import Access
    from towline.server.api.service import Service
    from towline.server.artifacts.keeping import Keeping
    from towline.server.intake import Intake
    from towline.server.leader import Leader
    from towline.server.logs.receiving import Receiving
    from towline.server.metrics import Metrics
    from towline.server.peers.joined import Joined
    from towline.server.process.local import Remote
    from towline.server.process.node import AgentProcess
    from towline.server.seats.making import Making
    from towline.server.seats.seats import Seats
    from towline.server.settings import Settings
    from towline.server.vault import Vault
    from towline.server.vault.logins import Logins
    from towline.server.vault.secrets import Secrets
    from towline.store.port import Store

LEASE_PATIENCE_S = 30.0
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of Towline's processes until it ends; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m towline.launch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server", help="the local server of a home")
    server.add_argument("--home", type=Path, required=True)
    server.add_argument("--config", type=Path, help="its settings, in place of HOME/server.toml")
    server.add_argument("--listen", help="HOST:PORT where other machines reach it")
    server.add_argument("--store-wait", help="for how long it waits for a database that is away")
    server.add_argument("--without-agent", action="store_true", help="do not start this machine's agent")
    agent = commands.add_parser("agent", help="the agent of a home's node")
    agent.add_argument("--home", type=Path, required=True)
    agent.add_argument("--join-from", type=int, help="the descriptor to read a join link from")
    arguments = parser.parse_args(argv)
    _leave_out_rich()
    try:
        if arguments.command == "agent":
            return run_agent(arguments.home.resolve(), arguments.join_from)
        return run_server(
            arguments.home.resolve(),
            with_agent=not arguments.without_agent,
            config=arguments.config,
            listen=arguments.listen,
            store_wait=arguments.store_wait,
        )
    except TowlineError as error:
        _Errors().write(f"tow {arguments.command}: {error}\n")
        return 2 if isinstance(error, RequestError | WrongSetting) else 1
    except OSError as error:
        import traceback

        # Such as a full disk while it starts. The starter shows the end of what is said here.
        _Errors().write(f"{traceback.format_exc()}tow {arguments.command}: {error}\n")
        return 1


def _leave_out_rich() -> None:
    """structlog would load it, a seventh of an agent's start, for tracebacks in colour."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]


def _load_numpy() -> None:
    """Without a thread for each CPU, which its linear algebra would start at once: nothing here uses that.
    What this process starts is to have no such variable: it may be somebody's program."""
    given = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        if given is None:
            del os.environ[_BLAS_THREADS]
        else:
            os.environ[_BLAS_THREADS] = given


class _Errors(io.TextIOBase):
    """Standard error, which is a file in the home: where its disk is full, lines are left out, and
    whoever logs goes on. Unbuffered, so that nothing waits to fail later."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)


def set_up_logging() -> None:
    """Structured lines to stderr, which the starter has redirected into the process's log file."""
    import structlog

    errors = _Errors()
    logging.basicConfig(stream=errors, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        logger_factory=structlog.WriteLoggerFactory(file=errors),
        cache_logger_on_first_use=True,
    )


def _render(_: Any, __: str, entry: MutableMapping[str, Any]) -> str:
    """``TIME level event key=value …``, and below it the traceback where there is one."""
    head = f"{entry.pop('timestamp')} {entry.pop('level'):7} {entry.pop('event')}"
    stack = entry.pop("exception", None)
    line = " ".join([head, *(f"{name}={value!r}" for name, value in entry.items())])
    return line if stack is None else f"{line}\n{stack}"


# --- the server ---------------------------------------------------------------------------------------
def run_server(home: Path, *, with_agent: bool, config: Path | None = None, **flags: str | None) -> int:
    """The server of ``home``, until it is stopped or, where nobody else reaches it, idle. ``flags`` are
    settings."""
    from towline.server.settings import read_settings

    build()  # taken now: the source may change while this server runs
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = read_settings(home, os.environ, flags, file=config)
    return _run(_serve(settings, with_agent=with_agent))


def _run(main: Coroutine[Any, Any, int]) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _serve(settings: Settings, *, with_agent: bool) -> int:
    """First the lease, the socket and the agent, so that others can get ready beside us; then the rest."""
    from towline.coordination.filelock import FileLease
    from towline.server.process.home import SOCKET, bind_socket, lease_path, wait_for_lease
    from towline.server.process.node import AgentProcess

    lease = FileLease(lease_path(settings.home))
    await wait_for_lease(lease, LEASE_PATIENCE_S)
    listener = bind_socket(settings.home / SOCKET)
    agent = AgentProcess(settings.home) if with_agent else None
    if agent is not None:
        agent.ensure()
    set_up_logging()
    try:
        await _build_and_run(settings, listener, agent)
    finally:
        lease.release()
    return 0


async def _build_and_run(settings: Settings, listener: socket.socket, agent: AgentProcess | None) -> None:
    _load_numpy()
    from towline.identity.roles import DEFAULT
    from towline.server.api.app import local_app
    from towline.server.api.service import Service
    from towline.server.facts import Facts
    from towline.server.process.local import LocalServer
    from towline.server.process.opening import open_store
    from towline.server.seats.asking import Asking
    from towline.server.seats.making import Making
    from towline.server.seats.seats import Seats
    from towline.store import make_store

    store = make_store(settings.store_url, settings.home, settings.leadership_ms)
    await open_store(store, settings.store_wait_ms)
    vault, logins, secrets = await _vault(store, settings.home)
    access = await _access(settings, store, vault)
    receiving, keeping = (None, None) if access is None else await _kept_of_nodes(settings, store)
    joined = await _joined(settings, store, access, receiving)
    facts = Facts(store, DEFAULT)
    metrics = _metrics(settings)
    making = Making(
        settings=settings,
        store=store,
        facts=facts,
        logins=logins,
        secrets=secrets,
        intake=lambda its, leader: _intake(making, its, leader, agent is not None),
        access=access,
        receiving=receiving,
        keeping=keeping,
        joined=joined,
        metrics=metrics,
    )
    seats = making.seats = Seats(settings.pool, making.seat)
    await _keep_seats(seats, store, joined)
    server = LocalServer(settings, store, seats, joined)
    archive = receiving and receiving.archive
    service = Service(
        seats=seats,
        seat=seats.home,
        asking=Asking(),
        store=store,
        facts=facts,
        vault=vault,
        logins=logins,
        secrets=secrets,
        stop=server.stop,
        access=access,
        archive=archive,
        keeping=keeping,
        metrics=metrics,
        joined=joined,
    )
    app = _app(service, settings)
    await server.run(local_app(app), listener, agent, _remote(settings, app, access, making.catch_up))
    if archive is not None:
        await asyncio.to_thread(archive.close)


async def _keep_seats(seats: Seats, store: Store, joined: Joined | None) -> None:
    """One for each pool that is there, also for those that other servers make."""
    await seats.learn(store)
    if joined is not None:
        leases = joined.leases

        def look() -> None:
            seats.hear([row.pool for row in leases.pools()])

        leases.looked.append(look)


def _app(service: Service, settings: Settings) -> ASGIApp:
    """The API with its audit; in front of it, what is another server's goes there; and before all, the pool
    of a request is found."""
    from towline.server.access.audit import Audit
    from towline.server.access.auditing import audited
    from towline.server.api.app import make_app
    from towline.server.seats.routing import Routing, routed

    app = make_app(service)
    access, seats = service.access, service.seats
    if access is not None:
        app = audited(app, Audit(service.store))
    if service.joined is not None:

        def leads(pool: str) -> bool:
            seat = seats.get(pool)
            return seat is not None and seat.leader.leads

        app = service.joined.door(app, leads)
    service.asking.app = app
    limit = settings.body_limit_bytes
    look = None if service.joined is None else _look(seats, service.store)
    return routed(app, Routing(seats, service.store, service.asking, _pool_of(access), limit, look))


def _look(seats: Seats, store: Store) -> Callable[[], Awaitable[None]]:
    """Hears, not too often, of pools that other servers have made."""
    from towline.server.peers.held import Newest

    return Newest(partial(seats.learn, store)).catch_up


def _pool_of(access: Access | None) -> Callable[[str], str | None]:
    """Names the pool that a node was enrolled for; on one machine nobody enrols."""
    return (lambda _: None) if access is None else access.enrolments.pool_of


def _intake(making: Making, settings: Settings, leader: Leader, with_agent: bool) -> Intake:
    """Of the pool that ``settings`` name."""
    from towline.identity.roles import DEFAULT
    from towline.server.intake import Intake

    cluster = making.access is not None
    return Intake(
        making.store,
        leader,
        DEFAULT,
        settings.pool,
        partial(_mount_roots, settings.home),
        partial(_policy, settings.home),
        partial(_check_submitted, making.secrets, settings),
        _check(leader, alone=with_agent and not cluster, cluster=cluster),
        pools=making.pools,
        catch_up=making.catch_up,
        behind=settings.pool != making.settings.pool,
    )


async def _joined(
    settings: Settings, store: Store, access: Access | None, receiving: Receiving | None
) -> Joined | None:
    """What a server has beyond others where it shares its store. Raises WrongSetting."""
    if not settings.store_url:
        return None
    if access is None:
        raise WrongSetting("store_url is set, but listen is not: servers that share a store reach each other")
    from towline.server.peers.joined import Joined

    joined = Joined(settings, store, access.authority)
    await joined.open()
    if receiving is not None:
        joined.read_output(receiving.archive)
    return joined


async def _kept_of_nodes(settings: Settings, store: Store) -> tuple[Receiving, Keeping]:
    """What the nodes of a cluster ship of their output, and what elements write: in the object store, the
    newest output in the server's home."""
    from towline.logs.archive import Archive
    from towline.logs.objects import open_objects
    from towline.server.artifacts.keeping import Keeping
    from towline.server.logs.receiving import Receiving

    objects = await asyncio.to_thread(open_objects, settings.object_store, settings.home)
    shared = bool(settings.store_url)
    archive = Archive(settings.home / "output", objects=objects, shared=shared)
    await asyncio.to_thread(archive.open)
    return Receiving(archive, store, shared=shared), Keeping(objects)


def _check_submitted(secrets: Secrets, settings: Settings, namespace: str, spec: JobSpec) -> None:
    """What a job names that has to be there, or be allowed."""
    from towline.server.webhooks.targets import check_targets

    secrets.within(namespace).check(spec)
    check_targets(spec, settings.targets)


async def _vault(store: Store, home: Path) -> tuple[Vault, Logins, Secrets]:
    """What is kept encrypted, with what of it is held in memory."""
    from towline.identity.roles import DEFAULT
    from towline.server.vault import KEY_FILE, Vault
    from towline.server.vault.logins import Logins
    from towline.server.vault.secrets import Secrets

    vault = Vault(store, home / KEY_FILE)
    logins, secrets = Logins(vault, DEFAULT), Secrets(vault, DEFAULT)
    await logins.load()
    await secrets.load()
    return vault, logins, secrets


def _metrics(settings: Settings) -> Metrics | None:
    """Of a server that others reach."""
    if not settings.listen:
        return None
    from towline.server.metrics import Metrics

    return Metrics()


async def _access(settings: Settings, store: Store, vault: Vault) -> Access | None:
    """What a server that others reach has beyond one of a single machine."""
    if not settings.listen:
        return None
    from towline.server.access.cluster import open_access

    return await open_access(store, vault)


def _remote(
    settings: Settings, app: ASGIApp, access: Access | None, catch_up: Callable[[], Awaitable[None]] | None
) -> Remote | None:
    """The door for other machines: TLS with a certificate of the cluster's authority, and the guard."""
    if access is None:
        return None
    from towline.identity.tls import server_context, use
    from towline.server.access.authority import own_names
    from towline.server.access.guard import remote_door
    from towline.server.process.home import allow_many_files, bind_port
    from towline.server.process.local import Remote
    from towline.server.settings import host_and_port

    host, port = host_and_port(settings.listen, "listen")
    allow_many_files()
    listener = bind_port(host, port)
    reached = [settings.reached_at()[0]] if settings.address else []
    names = own_names(host, [*reached, *settings.names])
    tls = server_context(access.authority.server(names), access.authority.certificate)
    door = remote_door(app, access.tokens, access.enrolments, catch_up)
    return Remote(door, listener, tls, lambda: use(tls, access.authority.server(names)))


def _check(leader: Any, *, alone: bool, cluster: bool) -> Callable[[JobSpec], Awaitable[None]] | None:
    """What a job is asked besides being valid: by the server of a machine that is the only node, and by
    one of several."""
    if alone:
        from towline.server.leader.only import OnlyNode

        return OnlyNode(leader).check
    if cluster:
        from towline.server.leader.together import check_together

        return check_together
    return None


def _mount_roots(home: Path) -> Sequence[str]:
    """What the home's agent allows, as it would read it now."""
    from towline.agent.settings import read_settings

    return read_settings(home, os.environ).allowed_mounts


def _policy(home: Path) -> Policy:
    """What the home's agent allows tasks, as it would read it now."""
    from towline.agent.settings import read_settings

    return read_settings(home, os.environ).policy


# --- the agent ----------------------------------------------------------------------------------------
def run_agent(home: Path, join_from: int | None = None) -> int:
    """The agent of ``home``, until it is of no use; see agent/main.py. With a join link in the file
    descriptor ``join_from`` the machine becomes a node of that cluster first."""
    from towline.agent import main as agent
    from towline.agent.settings import read_settings

    settings = read_settings(home, os.environ)
    if join_from is not None:
        from towline.agent.cluster.membership import join
        from towline.identity.joining import parse_join

        with os.fdopen(join_from, encoding="ascii") as file:
            link = file.read()
        settings.node_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        node = agent.node_id(settings.node_dir / "id")
        join(settings.membership_dir, parse_join(link), node, settings.name)
        settings = read_settings(home, os.environ)
    set_up_logging()
    return _run(agent.run_agent(settings, os.environ))


if __name__ == "__main__":
    sys.exit(main())
