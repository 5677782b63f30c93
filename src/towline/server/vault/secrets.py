"""Secrets: kept by the vault, and in memory for the tasks that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from towline.errors import InvalidDocument, NotFound, OperatorError, Problem, RequestError, StoreError
from towline.model import names
from towline.model.job import JobSpec
from towline.server.vault.vault import Entry, Vault

KIND = "secret"
MAX_BYTES = 64 * 1024
TRIES = 3
"""To read them without one being changed here meanwhile."""


class Secrets:
    """The secrets of one namespace; ``within`` gives those of another. Nothing of it shows a value but
    ``values_for``, which is for agents."""

    def __init__(self, vault: Vault, namespace: str) -> None:
        self._vault = vault
        self._namespace = namespace
        self._all: dict[str, dict[str, bytes]] = {}
        self._reading = asyncio.Lock()
        self._changes: list[None] = []
        """One for each change that was made while they were read."""

    @property
    def _open(self) -> dict[str, bytes]:
        return self._all.setdefault(self._namespace, {})

    def within(self, namespace: str) -> Secrets:
        made = Secrets(self._vault, namespace)
        made._all, made._reading, made._changes = self._all, self._reading, self._changes
        return made

    async def load(self) -> None:
        """Read those of all namespaces. One that does not open counts as not stored: its tasks say that it
        has to be set. Raises StoreError."""
        async with self._reading:  # so that what was read last is what stands
            for _ in range(TRIES):
                self._changes.clear()
                fresh = {space: await self._read(space) for space in await self._vault.namespaces(KIND)}
                if not self._changes:
                    break
            self._all.clear()
            self._all.update(fresh)

    async def _read(self, namespace: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for entry in await self._vault.list(namespace, KIND):
            try:
                found[entry.name] = await self._vault.get(namespace, KIND, entry.name)
            except NotFound:
                continue  # removed meanwhile
            except StoreError:
                raise  # nothing is known of it: what was read before stands
            except OperatorError as error:
                structlog.get_logger("secrets").warning("a secret cannot be used", reason=str(error))
        return found

    def values_for(self, namespace: str, wanted: Mapping[str, str]) -> dict[str, bytes]:
        """A task's ``secrets``, names of files by names of secrets, with values; without those that are
        not stored in its namespace."""
        known = self._all.get(namespace, {})
        return {file: known[name] for file, name in wanted.items() if name in known}

    def check(self, spec: JobSpec) -> None:
        """Raises InvalidDocument where a task or a webhook uses a secret that is not stored."""
        problems = [
            Problem(
                f"tasks.{task}.secrets.{file}",
                f"there is no secret {name!r}",
                f"store it first: tow secret set {name}",
            )
            for task, task_spec in spec.tasks.items()
            for file, name in task_spec.secrets.items()
            if name not in self._open
        ]
        problems += [
            Problem(
                f"notify[{at}].secret",
                f"there is no secret {notice.secret!r}",
                f"store it first: tow secret set {notice.secret}",
            )
            for at, notice in enumerate(spec.notify)
            if notice.secret not in self._open
        ]
        if problems:
            raise InvalidDocument(problems)

    async def list(self) -> list[Entry]:
        return await self._vault.list(self._namespace, KIND)

    async def put(self, name: str, value: bytes) -> None:
        """Keep a secret, in place of an older one. Raises RequestError."""
        _check_name(name)
        if not value:
            raise RequestError(f"The value of the secret {name} is empty: give it on standard input.")
        if len(value) > MAX_BYTES:
            raise RequestError(
                f"The value of the secret {name} has {len(value)} bytes: {MAX_BYTES} (64 KiB) is the most. "
                f"Mount larger files, encrypted, and keep their key here."
            )
        await self._vault.put(self._namespace, KIND, name, value)
        self._open[name] = value
        self._changed()

    async def delete(self, name: str) -> None:
        """Raises NotFound, and RequestError for what is no name."""
        _check_name(name)
        await self._vault.delete(self._namespace, KIND, name)
        self._open.pop(name, None)
        self._changed()

    def _changed(self) -> None:
        if self._reading.locked():
            self._changes.append(None)


def _check_name(name: str) -> None:
    if not names.SECRET_NAME.match(name):
        raise RequestError(f"{name[:200]!r} is no name of a secret: {names.SECRET_NAME_RULE}.")
