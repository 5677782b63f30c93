"""Logins at registries: kept by the vault, and in memory for the tasks that need them."""

from __future__ import annotations

import structlog

from towline.errors import NotFound, OperatorError, RequestError, StoreError
from towline.model.imageref import parse_image
from towline.server.vault.vault import Entry, Vault

KIND = "registry"
_MAX_LENGTH = 64 * 1024


class Logins:
    """The logins of one namespace."""

    def __init__(self, vault: Vault, namespace: str) -> None:
        self._vault = vault
        self._namespace = namespace
        self._open: dict[str, tuple[str, str, str]] = {}

    async def load(self) -> None:
        """Read all. One that does not open is left out: its images then say that they need a login. Raises
        StoreError."""
        fresh: dict[str, tuple[str, str, str]] = {}
        for entry in await self._vault.list(self._namespace, KIND):
            try:
                fresh[entry.name] = await self._read(entry.name)
            except NotFound:
                continue  # removed meanwhile
            except StoreError:
                raise  # nothing is known of it: what was read before stands
            except OperatorError as error:
                structlog.get_logger("logins").warning("a login cannot be used", reason=str(error))
        self._open = fresh

    async def _read(self, registry: str) -> tuple[str, str, str]:
        password, user = await self._vault.get_with_user(self._namespace, KIND, registry)
        return registry, user or "", password.decode()

    def login_for(self, image: str) -> tuple[str, str, str] | None:
        """(registry, user, password) of an image's registry; None where there is no login at it."""
        try:
            ref = parse_image(image)
        except ValueError:
            return None
        return None if ref.local else self._open.get(ref.registry)

    async def list(self) -> list[Entry]:
        return await self._vault.list(self._namespace, KIND)

    async def put(self, registry: str, user: str, password: str) -> str:
        """Keep a login, in place of an older one; returns the registry's full name. Raises RequestError."""
        name = registry_name(registry)
        if not user or ":" in user or not user.isprintable():
            raise RequestError("A registry's user is not empty, and has no colon in it: give it with --user.")
        if not password or len(password) > _MAX_LENGTH or "\n" in password or "\0" in password:
            raise RequestError("The password is empty, or is not one line of text.")
        await self._vault.put(self._namespace, KIND, name, password.encode(), user=user)
        self._open[name] = (name, user, password)
        return name

    async def delete(self, registry: str) -> str:
        """Raises NotFound."""
        name = registry_name(registry)
        await self._vault.delete(self._namespace, KIND, name)
        self._open.pop(name, None)
        return name


def registry_name(text: str) -> str:
    """As it stands before the images' names. Raises RequestError."""
    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    try:
        ref = parse_image(f"{host}/x/y")
    except ValueError as error:
        raise RequestError(f"{text[:200]!r} is no registry: {error}.") from None
    if "/" in host or ref.repository != "x/y":
        raise RequestError(f"{text[:200]!r} is no registry: use HOST or HOST:PORT, such as ghcr.io")
    return ref.registry
