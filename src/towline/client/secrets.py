"""What can be asked of the secrets that a server keeps: never their values."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from msgspec import Struct

from towline.client.api import Client
from towline.errors import RequestError
from towline.model import names
from towline.model.views import SecretView


class SecretList(Struct, kw_only=True):
    secrets: list[SecretView]


class Secrets:
    """Values that tasks get as files, by their names."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[SecretView]:
        """In order of their names."""
        return (await self._client.get(SecretList, "/v1/secrets")).secrets

    async def set(self, name: str, value: bytes) -> SecretView:
        """Keep a secret of 1 byte to 64 KiB in place of an older one. Raises RequestError."""
        body = {"value": value}
        return msgspec.json.decode(await self._client.request("PUT", _path(name), body=body), type=SecretView)

    async def remove(self, name: str) -> None:
        """Raises NotFound."""
        await self._client.request("DELETE", _path(name))


def _path(name: str) -> str:
    if not names.SECRET_NAME.match(name):
        raise RequestError(f"{name[:200]!r} is no name of a secret: {names.SECRET_NAME_RULE}.")
    return f"/v1/secrets/{quote(name, safe='')}"
