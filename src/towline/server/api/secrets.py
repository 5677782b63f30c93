"""``/v1/secrets``: set, list and remove secrets. No request answers with a value."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router, delete, get, put
from litestar.params import FromPath
from msgspec import Struct

from towline.model.units import rfc3339
from towline.model.views import SecretView
from towline.server.api.queues import decoded
from towline.server.api.service import service_of
from towline.server.vault import Entry

AnyRequest = Request[Any, Any, Any]


class SecretList(Struct, kw_only=True):
    secrets: list[SecretView]


class SecretBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """``value`` is base64 in JSON."""

    value: bytes

    def __repr__(self) -> str:
        return "SecretBody(value=***)"


@get("/v1/secrets")
async def list_secrets(request: AnyRequest) -> SecretList:
    """Secrets, without their values."""
    return SecretList(secrets=[_view(entry) for entry in await service_of(request).secrets.list()])


@put("/v1/secrets/{name:str}", status_code=200, body=SecretBody)
async def set_secret(request: AnyRequest, name: FromPath[str]) -> SecretView:
    """Set a secret."""
    body = await decoded(request, SecretBody)
    service = service_of(request)
    await service.secrets.put(name, body.value)
    service.seats.descriptions_changed()
    return next(_view(entry) for entry in await service.secrets.list() if entry.name == name)


@delete("/v1/secrets/{name:str}")
async def remove_secret(request: AnyRequest, name: FromPath[str]) -> None:
    """Remove a secret."""
    service = service_of(request)
    await service.secrets.delete(name)
    service.seats.descriptions_changed()


def _view(entry: Entry) -> SecretView:
    return SecretView(name=entry.name, version=entry.version, updated_at=rfc3339(entry.updated_at))


secrets_router = Router("/", route_handlers=[list_secrets, set_secret, remove_secret])
