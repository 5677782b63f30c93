"""The server's configuration: one Struct, from defaults, ``HOME/server.toml``, TOWLINE_* and flags.

Later sources win. Every value is checked when it is read, and a message names the setting and
where it was written.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from towline.coordination.zookeeper import Ensemble
from towline.core.lease import Silence, check_times
from towline.errors import RequestError, WrongSetting
from towline.identity.joining import PORT
from towline.model.units import parse_bytes, parse_duration
from towline.server.webhooks.targets import Targets
from towline.store.address import Address
from towline.wire.messages import LeaseTimes

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
SHORTEST_MS, LONGEST_MS = 100, 86_400_000
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9])?\.?\Z|[0-9a-f:.]+(?:%[A-Za-z0-9._-]+)?\Z")
"""A name or an address, in lower case: it is printed inside a line for a shell."""
SHORTEST_HALF_LIFE_MS, LONGEST_HALF_LIFE_MS = 60_000, 3650 * 86_400_000
_LISTS = ("names", "webhook_targets")
"""Lists: parted by commas where a variable gives them."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator may tune; ``home`` is the folder of everything that is local."""

    home: Path
    pool: str = "default"
    store_url: str = ""
    """``postgresql://USER@HOST/DATABASE``, which several servers may share; empty: SQLite in the home."""
    store_wait: str = "60s"
    """So long a server that starts waits for a database that cannot be reached."""
    coordination_url: str = ""
    """``zk://HOST1,HOST2,HOST3/PATH``: where servers that share a store keep their leases; empty: in it."""
    listen: str = ""
    """HOST:PORT where other machines reach this server, over TLS; empty: nowhere."""
    address: str = ""
    """HOST or HOST:PORT as nodes and clients reach it, where that is not what it listens on."""
    names: tuple[str, ...] = ()
    """Further host names and addresses that its certificate is for."""
    max_connections: Count = 1000
    """Connections of callers over TLS at one time; those of nodes do not count."""
    webhook_targets: tuple[str, ...] = ()
    """Hosts, ``*.NAME``, addresses and networks that webhooks may go to; empty: all that is public."""
    idle_s: Positive = 60.0
    """A local server ends after so long without an unfinished job and without a connection."""
    window_ms: Annotated[int, Meta(ge=0, le=1000)] = 20
    """The longest that a commit is held back, counted from the one before, so that more fits into it."""
    window_above: Annotated[int, Meta(ge=0)] = 16
    """Commits are held back only while more attempts than these are under way."""
    coalesce_ms: Annotated[int, Meta(ge=0, le=5000)] = 20
    """Readers of event streams get a message at most so often; the end of a job is told at once."""
    event_tail: Count = 20_000
    """Events kept in memory for readers; older ones are read from the store."""
    body_limit_bytes: Count = 64 * 1024**2
    read_log_timeout_s: Positive = 10.0
    """How long a node may take to answer a request for a piece of output."""
    retention_days: Positive = 30.0
    """Jobs that ended longer ago are deleted, with their events."""
    object_store: str = ""
    """Where a cluster's artifacts are kept: s3://…, gs://…, az://… or file:///…; empty: a folder of the
    home."""
    shared_files: bool = False
    """Where several servers share a store: object_store is a folder that all of them have."""
    retention_logs: str = "50Gi"
    """Output that nodes have shipped takes so much at most: that of the oldest ended attempts goes first."""
    placement_policy: str = "headroom"
    """How what asks for GPUs is packed: headroom, best-fit, or an entry point's name."""
    order_policy: str = "slowdown"
    """The order inside a queue behind priority and usage: slowdown, easy, easy-sjf, wfp3, unicef, sjf, or
    an entry point's name."""
    placement_plugins: str = ""
    """Filters and scores of an operator's own: names of entry points, parted by commas."""
    usage_half_life: str = "24h"
    """What a namespace has used of the pool counts half as much after so long, in the order of queues."""
    heartbeat: str = "2s"
    """How often a node says that it lives."""
    node_lease: str = "20s"
    """So long after the sending of its last answered heartbeat a node stops what has on_disconnect: stop."""
    lease_grace: str = "3s"
    """What is stopped then has at most so long to end by itself."""
    lost_after: str = "25s"
    """A node that is silent for so long is lost, and what has on_disconnect: stop runs elsewhere."""
    lost_after_keep: str = ""
    """After so long what has on_disconnect: keep runs elsewhere; empty: as lost_after."""
    leadership_lease: str = "5s"
    """Where several servers share a store: so long after the last renewal of a leader another one leads."""
    maintenance: str = "10m"
    """Where the server is stopped, what has on_disconnect: stop goes on for so long."""
    backoff_first_ms: Count = 50
    backoff_max_ms: Count = 5_000
    """How long a leader waits between attempts to lead: doubling from the first to the last."""

    def __post_init__(self) -> None:
        _ = self.usage_half_life_ms, self.retention_logs_bytes, self.targets
        _ = self.lease, self.heartbeat_ms, self.silence, self.maintenance_ms, self.leadership_ms
        _ = self.store_wait_ms
        for name in ("listen", "address"):
            if getattr(self, name):
                host_and_port(getattr(self, name), name)
        if self.store_url:
            Address(self.store_url)
        if self.coordination_url:
            Ensemble(self.coordination_url)
        if self.backoff_first_ms > self.backoff_max_ms:
            raise ValueError(
                f"backoff_first_ms ({self.backoff_first_ms}) is above backoff_max_ms "
                f"({self.backoff_max_ms}): lower the first or raise the second"
            )

    def check_together(self) -> None:
        """Raises ValueError, which names the settings, where they do not go together."""
        if self.coordination_url and not self.store_url:
            raise ValueError(
                "coordination_url is set, but store_url is not: leases are of servers that share a store"
            )
        lease, silence = self.lease, self.silence
        check_times(lease.lease_ms, lease.grace_ms, silence.lost_after_ms)
        shortest = min((lease.lease_ms, "node_lease"), (silence.keep_ms, "lost_after_keep"))
        if self.heartbeat_ms >= shortest[0]:
            raise ValueError(
                f"heartbeat ({self.heartbeat}) has to be less than {shortest[1]} ({shortest[0] / 1000:g} s)"
            )

    @property
    def heartbeat_ms(self) -> int:
        """Raises ValueError."""
        return self._time_ms("heartbeat")

    @property
    def lease(self) -> LeaseTimes:
        """What the nodes of a cluster are told. Raises ValueError."""
        return LeaseTimes(lease_ms=self._time_ms("node_lease"), grace_ms=self._time_ms("lease_grace"))

    @property
    def leadership_ms(self) -> int:
        """Raises ValueError."""
        return self._time_ms("leadership_lease")

    @property
    def maintenance_ms(self) -> int:
        """Raises ValueError."""
        return self._time_ms("maintenance")

    @property
    def store_wait_ms(self) -> int:
        """Raises ValueError."""
        return self._time_ms("store_wait", 1)

    @property
    def silence(self) -> Silence:
        """What becomes of silent nodes. One machine alone has no node lease. Raises ValueError."""
        lost_after_ms = self._time_ms("lost_after")
        keep_ms = self._time_ms("lost_after_keep") if self.lost_after_keep else lost_after_ms
        return Silence(lost_after_ms, keep_ms, leased=bool(self.listen))

    def _time_ms(self, name: str, shortest_ms: int = SHORTEST_MS) -> int:
        text = getattr(self, name)
        try:
            found = parse_duration(text)
        except ValueError as error:
            raise ValueError(f"{name} is {text!r}: {error}") from None
        if not shortest_ms <= found <= LONGEST_MS:
            raise ValueError(f"{name} is {text!r}: write {shortest_ms}ms to 1d")
        return found

    @property
    def targets(self) -> Targets:
        """Raises ValueError."""
        return Targets(self.webhook_targets)

    @property
    def rules(self) -> tuple[str, str, str, int]:
        """What ``rules_maker`` wants."""
        return self.placement_policy, self.placement_plugins, self.order_policy, self.usage_half_life_ms

    @property
    def usage_half_life_ms(self) -> int:
        """Raises ValueError for what is no duration, or one that no pool can use."""
        try:
            found = parse_duration(self.usage_half_life)
        except ValueError as error:
            raise ValueError(f"usage_half_life is {self.usage_half_life!r}: {error}") from None
        if not SHORTEST_HALF_LIFE_MS <= found <= LONGEST_HALF_LIFE_MS:
            raise ValueError(f"usage_half_life is {self.usage_half_life!r}: write 1m to 3650d")
        return found

    @property
    def retention(self) -> tuple[float, int]:
        """(the days that jobs are kept, the bytes of output)."""
        return self.retention_days, self.retention_logs_bytes

    @property
    def own_files(self) -> str:
        """The folder that artifacts are in where other servers do not reach it."""
        if self.shared_files or not (self.object_store == "" or self.object_store.startswith("file:")):
            return ""
        return self.object_store or str(self.home / "objects")

    @property
    def retention_logs_bytes(self) -> int:
        """Raises ValueError for what is no amount of bytes."""
        try:
            return parse_bytes(self.retention_logs)
        except ValueError as error:
            raise ValueError(f"retention_logs is {self.retention_logs!r}: {error}") from None

    def reached_at(self, address: str | None = None) -> tuple[str, int]:
        """(host, port) for a join link: as given, as configured, or this machine's name.
        Raises RequestError."""
        own_port = host_and_port(self.listen, "listen")[1] if self.listen else PORT
        given = address or self.address
        try:
            host, port = host_and_port(given, "address", own_port) if given else ("", own_port)
        except ValueError as error:
            raise RequestError(str(error)) from None
        listens_on = host_and_port(self.listen, "listen")[0] if self.listen else ""
        if not host and listens_on not in ("", "0.0.0.0", "::"):
            host = listens_on
        return host or socket.gethostname(), port


def host_and_port(text: str, what: str, port: int = PORT) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT`` or ``[V6]:PORT``. Raises ValueError that names ``what``."""
    host, found = "", -1
    with contextlib.suppress(ValueError):
        parts = urlsplit(f"//{text}")
        bare = not parts.path and not parts.query and not parts.fragment and parts.username is None
        host, found = (parts.hostname or "") if bare else "", port if parts.port is None else parts.port
    if not _HOST.match(host) or found < 0 or not text.isprintable():
        raise ValueError(f"{what} is {text!r}: write HOST:PORT, such as 0.0.0.0:{PORT} or [::]:{PORT}")
    return host, found


def read_settings(
    home: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
) -> Settings:
    """Put the sources together; ``file`` in place of the home's. Raises WrongSetting with the file or
    variable that is wrong."""
    values: dict[str, Any] = {}
    if file is not None or (home / "server.toml").exists():
        values |= _from_toml(file or home / "server.toml")
    for field in msgspec.structs.fields(Settings):
        name = f"TOWLINE_{field.name.upper()}"
        if name in environ and field.name != "home":
            given: Any = environ[name]
            if field.name in _LISTS:
                given = [part.strip() for part in given.split(",") if part.strip()]
            values |= _checked({field.name: given}, home, f"the variable {name}", strict=False)
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    settings = _settings(values, home, "the settings together", strict=True)
    try:
        settings.check_together()
    except ValueError as error:
        raise WrongSetting(f"the settings together: {error}") from None
    return settings


def _from_toml(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise WrongSetting(f"{file} cannot be read: {error}") from None
    return _checked(_flat(found), file.parent, str(file), strict=True)


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """``store.url``, or ``url`` in a table ``[store]``, is the setting ``store_url``; so is
    ``coordination.url``."""
    flat: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{below}": one for below, one in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _checked(values: dict[str, Any], home: Path, source: str, *, strict: bool) -> dict[str, Any]:
    settings = _settings(values, home, source, strict=strict)
    return {name: getattr(settings, name) for name in values}


def _settings(values: dict[str, Any], home: Path, source: str, *, strict: bool) -> Settings:
    try:
        return msgspec.convert({**values, "home": str(home)}, Settings, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise WrongSetting(f"{source}: {error}") from None


def _path(kind: type, value: object) -> object:
    return kind(value)
