"""``/v1/images``: the images of a node; ``/v1/registries``: logins at registries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from towline.errors import NotFound, OperatorError, RequestError, RetryError
from towline.model.imageref import parse_image
from towline.model.units import rfc3339
from towline.model.views import ImagesFreedView, ImageView, LoginView, PullView
from towline.server.api.queues import decoded
from towline.server.api.service import OF_A_POOL, Service, service_of
from towline.server.vault import Entry
from towline.wire.messages import ImageAnswer, ImageCall, ImageInfo

AnyRequest = Request[Any, Any, Any]
Node = Annotated[str | None, QueryParameter(name="node")]
_encoder = msgspec.json.Encoder()


class ImageList(Struct, kw_only=True):
    images: list[ImageView]


class LoginList(Struct, kw_only=True):
    registries: list[LoginView]


class ImageBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """An image's name; paths in it are relative to ``base_dir``."""

    reference: str
    base_dir: str | None = None


class GcBody(Struct, kw_only=True, forbid_unknown_fields=True):
    dry_run: bool = False
    everything: bool = False


class LoginBody(Struct, kw_only=True, forbid_unknown_fields=True):
    user: str
    password: str


@get("/v1/images", asks=OF_A_POOL)
async def list_images(request: AnyRequest, node: Node = None) -> ImageList:
    """Images on a node."""
    answer = await _asked(service_of(request), node, ImageCall(request=0, what="ls"))
    return ImageList(images=[_view(info) for info in answer.images])


@post("/v1/images/pull", status_code=200, body=ImageBody, media="application/x-ndjson", asks=OF_A_POOL)
async def pull_image(request: AnyRequest, node: Node = None) -> Stream:
    """NDJSON of PullViews; the last one has the image or the error."""
    body = await decoded(request, ImageBody)
    service = service_of(request)
    try:
        parse_image(body.reference)
    except ValueError as error:
        raise RequestError(f"{body.reference[:200]!r} cannot be pulled: {error}.") from None
    call = ImageCall(
        request=0,
        what="pull",
        reference=body.reference,
        base_dir=body.base_dir,
        registry_auth=service.logins.login_for(body.reference),
    )
    return Stream(_lines(service.gateway.image_call(node, call)), media_type="application/x-ndjson")


async def _lines(answers: AsyncIterator[ImageAnswer]) -> AsyncIterator[bytes]:
    try:
        async for answer in answers:
            if not answer.done:
                yield _line(PullView(progress=answer.progress))
            elif answer.error is not None:
                yield _line(PullView(error=answer.error, reason=answer.kind))
            else:
                yield _line(PullView(image=_view(answer.images[0])))
    except RetryError as error:
        yield _line(PullView(error=str(error), reason="unavailable"))


def _line(view: PullView) -> bytes:
    return _encoder.encode(view) + b"\n"


@post("/v1/images/remove", status_code=200, body=ImageBody, asks=OF_A_POOL)
async def remove_image(request: AnyRequest, node: Node = None) -> ImagesFreedView:
    """Remove an image from a node."""
    body = await decoded(request, ImageBody)
    call = ImageCall(request=0, what="rm", reference=body.reference, base_dir=body.base_dir)
    return _freed(await _asked(service_of(request), node, call))


@post("/v1/images/gc", status_code=200, body=GcBody, asks=OF_A_POOL)
async def collect_images(request: AnyRequest, node: Node = None) -> ImagesFreedView:
    """Remove images that nobody uses."""
    body = await decoded(request, GcBody)
    call = ImageCall(request=0, what="gc", dry_run=body.dry_run, everything=body.everything)
    return _freed(await _asked(service_of(request), node, call))


async def _asked(service: Service, node: str | None, call: ImageCall) -> ImageAnswer:
    """The node's last answer. Raises what its error stands for."""
    async for answer in service.gateway.image_call(node, call):
        if answer.done:
            if answer.error is None:
                return answer
            kinds = {"not_found": NotFound, "refused": RequestError}
            raise kinds.get(answer.kind or "", OperatorError)(answer.error)
    raise AssertionError("a link ended without its last answer")


def _view(info: ImageInfo) -> ImageView:
    return ImageView(
        digest=info.digest,
        names=list(info.names),
        unpacked_bytes=info.unpacked_bytes,
        compressed_bytes=info.compressed_bytes,
        pulled_at=rfc3339(info.pulled_at) if info.pulled_at else None,
        used_at=rfc3339(info.used_at) if info.used_at else None,
        attempts=info.attempts,
        progress=info.progress,
    )


def _freed(answer: ImageAnswer) -> ImagesFreedView:
    return ImagesFreedView(
        removed=list(answer.removed), freed_bytes=answer.freed_bytes, left_bytes=answer.left_bytes
    )


# --- logins -------------------------------------------------------------------------------------------
@get("/v1/registries")
async def list_registries(request: AnyRequest) -> LoginList:
    """Registries with a login."""
    return LoginList(registries=[_login(entry) for entry in await service_of(request).logins.list()])


@put("/v1/registries/{registry:str}", status_code=200, body=LoginBody)
async def log_in(request: AnyRequest, registry: FromPath[str]) -> LoginView:
    """Keep a login for a registry."""
    body = await decoded(request, LoginBody)
    service = service_of(request)
    name = await service.logins.put(registry, body.user, body.password)
    service.seats.descriptions_changed()
    return next(_login(entry) for entry in await service.logins.list() if entry.name == name)


@delete("/v1/registries/{registry:str}")
async def log_out(request: AnyRequest, registry: FromPath[str]) -> None:
    """Forget a login."""
    service = service_of(request)
    await service.logins.delete(registry)
    service.seats.descriptions_changed()


def _login(entry: Entry) -> LoginView:
    return LoginView(registry=entry.name, user=entry.user, updated_at=rfc3339(entry.updated_at))


images_router = Router(
    "/",
    route_handlers=[
        list_images,
        pull_image,
        remove_image,
        collect_images,
        list_registries,
        log_in,
        log_out,
    ],
)
