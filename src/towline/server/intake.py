"""Submissions: from the bytes of a request to a committed job, once for each idempotency key.

The key is reserved first, with the id that the job will have. A repeat, also after a crash between
the reservation and the commit, leads to the same job; a refused request frees its key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from towline.core.commands import Submit
from towline.core.rows import JobRow
from towline.errors import Conflict, InvalidDocument, OperatorError, Problem, RequestError, Unavailable
from towline.model.document import load_tree
from towline.model.job import JobSpec, TaskSpec
from towline.model.names import ANY_POOL
from towline.model.places import resolve_mounts
from towline.runtime.paths import MountRefused, resolve_mount
from towline.runtime.policy import Policy, refusals
from towline.server.leader import Leader
from towline.store.port import Reservation, Store

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Of job ids: no characters that look like others."""
ID_LENGTH = 10
LARGE_BYTES = 128 * 1024
"""Documents above this are read in a thread, so that others are served meanwhile."""
MAX_KEY_LENGTH = 200
PREPARED = "towline_prepared"
"""In a request's state: its submission, where it had to be read before its pool was known."""


POOLS_SHOWN = 20

ALLOW_REMEDY = (
    "put the data there, or allow its folder: TOWLINE_ALLOWED_MOUNTS, or agent.toml in TOWLINE_HOME"
)

MountRoots = Callable[[], Sequence[str]]
"""Folders that the configuration of this machine's agent allows, besides a job's base_dir."""

PolicySource = Callable[[], Policy]
"""What the configuration allows tasks now."""


SecretsCheck = Callable[[str, JobSpec], None]
"""Raises InvalidDocument where a job uses secrets that are not stored in its namespace."""


RuntimesCheck = Callable[[JobSpec], Awaitable[None]]
"""Raises InvalidDocument where a job asks for what the only node cannot run at all."""


class Submission(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/jobs``. ``document`` is the job file as a tree."""

    document: Any
    params: dict[str, Any] = {}
    base_dir: str | None = None


class Prepared(NamedTuple):
    spec: JobSpec
    base_dir: str | None
    digest: str


class Intake:
    """Takes submissions for one pool and one namespace. ``mount_roots``: where the only node is this
    machine, mounts that it would refuse are refused at once. ``policy``: what tasks may ask for of
    containers; None: nothing beyond the default. ``pools`` are all there are; None: this one. ``catch_up``
    reads what other servers have changed of secrets; ``behind``: another pool's leader takes them, so that
    one that is known may have a new value."""

    def __init__(
        self,
        store: Store,
        leader: Leader,
        namespace: str,
        pool: str,
        mount_roots: MountRoots | None = None,
        policy: PolicySource | None = None,
        check_secrets: SecretsCheck | None = None,
        check_runtimes: RuntimesCheck | None = None,
        new_id: Callable[[], str] | None = None,
        pools: Callable[[], Sequence[str]] | None = None,
        catch_up: Callable[[], Awaitable[None]] | None = None,
        behind: bool = False,
    ) -> None:
        self._new_id = new_id or new_job_id
        self._pools = pools
        self._catch_up = catch_up
        self._behind = behind
        self._check_runtimes = check_runtimes
        self._check_secrets = check_secrets
        self._policy = policy
        self._mount_roots = mount_roots
        self._store = store
        self._leader = leader
        self._namespace = namespace
        self._pool = pool
        self._reserver = Reserver(store)
        self._under_way: dict[tuple[str, str], asyncio.Future[None]] = {}

    def within(self, namespace: str) -> Intake:
        """The same for another namespace."""
        made = copy(self)
        made._namespace = namespace
        return made

    async def submit(
        self, body: bytes, key: str | None, prepared: Prepared | None = None
    ) -> tuple[str, bool]:
        """The job's id, and whether it is new; ``prepared`` where the body was read before. Raises
        InvalidDocument, Conflict, Unavailable, and OperatorError for a job that was set aside when it was
        submitted."""
        if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
            raise RequestError(f"Idempotency-Key is 1 to {MAX_KEY_LENGTH} characters long.")
        key = key or secrets.token_hex(16)
        if prepared is None:
            prepared = await prepared_from(body)
        at = (self._namespace, key)
        while (before := self._under_way.get(at)) is not None:
            await asyncio.wait(
                [before]
            )  # not the future itself: a caller that goes away would end it for all
        done = self._under_way[at] = asyncio.get_running_loop().create_future()
        try:
            return await self._submit_once(prepared, key)
        finally:
            del self._under_way[at]
            done.set_result(None)

    async def _submit_once(self, prepared: Prepared, key: str) -> tuple[str, bool]:
        self._check_pool(prepared.spec)  # before the key names this pool, which nothing would take back
        wanted = Reservation(
            namespace=self._namespace,
            key=key,
            digest=prepared.digest,
            job=self._new_id(),
            pool=self._pool,
        )
        stands = await self._reserver.reserve(wanted)
        if stands.digest != prepared.digest:
            raise Conflict(
                f"Idempotency-Key {key!r} was used for another submission: use a new key for a new job."
            )
        if stands.error is not None:
            raise OperatorError(f"{stands.error} (job {stands.job})")
        if stands.job != wanted.job and await self._exists(stands.job):
            return stands.job, False
        if stands.pool != self._pool:
            # It came twice at once, and each was sent to another pool.
            raise Unavailable(f"The job is being submitted to the pool {stands.pool}: repeat the request.")
        command = Submit(
            job=stands.job, namespace=self._namespace, spec=prepared.spec, base_dir=prepared.base_dir
        )
        try:
            await self.check(prepared)
            await self._leader.ask(command, (self._namespace, key))
        except RequestError:
            await self._store.release(self._namespace, key)
            raise
        return stands.job, True

    async def check(self, prepared: Prepared) -> None:
        """Whether this server takes such a job: its pool, its mounts, what it asks of the policy, its
        secrets, its runtimes. Raises InvalidDocument, Unavailable."""
        self._check_pool(prepared.spec)
        await self._check_mounts(prepared)
        self._check_policy(prepared)
        await self._look_for_secrets(prepared.spec)
        if self._check_runtimes is not None:
            await self._check_runtimes(prepared.spec)

    def _check_pool(self, spec: JobSpec) -> None:
        if spec.pool in ((), (ANY_POOL,)) or self._pool in spec.pool:
            return
        known = [self._pool] if self._pools is None else self._pools()
        missing = [pool for pool in spec.pool if pool not in known]
        if not missing:
            raise Unavailable("The pools have just changed: repeat the request.")
        remedy = f"name one of {', '.join(known[:POOLS_SHOWN])}, or make one: `tow pool create NAME`"
        raise InvalidDocument([Problem("pool", f"there is no pool {name!r}", remedy) for name in missing])

    async def _look_for_secrets(self, spec: JobSpec) -> None:
        """One that another server was given a moment ago may not be known here yet."""
        if self._check_secrets is None:
            return
        if self._behind and self._catch_up is not None and _uses_secrets(spec):
            await self._catch_up()
        try:
            self._check_secrets(self._namespace, spec)
        except InvalidDocument:
            if self._catch_up is None:
                raise
            await self._catch_up()
            self._check_secrets(self._namespace, spec)

    async def _check_mounts(self, prepared: Prepared) -> None:
        tasks = prepared.spec.tasks
        if self._mount_roots is None or not any(task.mounts for task in tasks.values()):
            return
        roots = [*self._mount_roots(), *([prepared.base_dir] if prepared.base_dir is not None else [])]
        problems = await asyncio.to_thread(refused_mounts, tasks, roots)
        if problems:
            raise InvalidDocument(problems)

    def _check_policy(self, prepared: Prepared) -> None:
        asking = any(
            task.capabilities or task.privileged or task.user for task in prepared.spec.tasks.values()
        )
        if not asking:
            return
        policy = self._policy() if self._policy is not None else Policy()
        problems = [
            Problem(f"tasks.{name}.{refusal.field}", refusal.what, refusal.remedy)
            for name, task in prepared.spec.tasks.items()
            for refusal in refusals(task, policy)
        ]
        if problems:
            raise InvalidDocument(problems)

    async def _exists(self, job: str) -> bool:
        rows: list[JobRow] = await self._store.find_jobs(self._namespace, job)
        return any(row.id == job for row in rows)


def _uses_secrets(spec: JobSpec) -> bool:
    return bool(spec.notify) or any(task.secrets for task in spec.tasks.values())


class Reserver:
    """Reservations in batches: while one transaction is written, the next ones gather."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Reservation, asyncio.Future[Reservation]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def reserve(self, wanted: Reservation) -> Reservation:
        """What stands for the key now. Raises StoreError."""
        future: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    found = await self._store.reserve([wanted for wanted, _ in batch])
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), reservation in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(reservation)
        finally:
            self._writer = None


async def prepared_from(body: bytes) -> Prepared:
    """As ``prepare``, of a large body beside what else is done."""
    return await asyncio.to_thread(prepare, body) if len(body) > LARGE_BYTES else prepare(body)


def prepare(body: bytes) -> Prepared:
    """Validate the body of a submission. Raises InvalidDocument with everything that is wrong.

    The digest is of the body as read, so spaces and escapes make no difference; the order of
    tasks does.
    """
    try:
        submission = msgspec.json.decode(body, type=Submission)
        twice = repeated_keys(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        example = 'send {"document": {...}, "params": {...}, "base_dir": "/absolute"}'
        raise InvalidDocument([Problem("", f"the request's body does not fit: {error}", example)]) from None
    except RecursionError:
        raise InvalidDocument([Problem("", "the document is nested too deeply")]) from None
    if twice:
        remedy = "keep one of them"
        raise InvalidDocument([Problem("", f"the key {key!r} is there twice", remedy) for key in twice])
    _check_base_dir(submission.base_dir)
    digest = hashlib.sha256(msgspec.json.encode(submission)).hexdigest()
    spec = load_tree(submission.document, submission.params)
    return Prepared(resolve_mounts(spec, submission.base_dir), submission.base_dir, digest)


def repeated_keys(body: bytes) -> list[str]:
    """Keys that stand twice in one object of a JSON text, of which only the last would count."""
    found: dict[str, None] = {}

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        if len({key for key, _ in pairs}) < len(pairs):
            for key, _ in pairs:
                if key in seen:
                    found[key] = None
                seen.add(key)

    # Numbers are msgspec's to read: Python's own has other limits.
    json.loads(body, object_pairs_hook=look, parse_int=len, parse_float=len)
    return list(found)


def _check_base_dir(base_dir: str | None) -> None:
    if base_dir is not None and (not base_dir.startswith("/") or "\0" in base_dir):
        remedy = "write the absolute path of the folder that relative paths start from, or leave it out"
        raise InvalidDocument([Problem("base_dir", f"{base_dir!r} is no absolute path", remedy)])


def refused_mounts(tasks: Mapping[str, TaskSpec], roots: Sequence[str]) -> list[Problem]:
    """What this machine's agent would refuse, by its own rule. What is not there yet may be made by a
    task that comes before."""
    problems: list[Problem] = []
    for name, task in tasks.items():
        for at, mount in enumerate(task.mounts):
            try:
                resolve_mount(mount.source, roots)
            except MountRefused as refused:
                if not refused.missing or not task.needs:
                    where = f"tasks.{name}.mounts[{at}].source"
                    remedy = refused.remedy if refused.missing else ALLOW_REMEDY
                    problems.append(Problem(where, f"{mount.source!r} {refused.what}", remedy))
    return problems


def new_job_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
