"""What can be asked of the images of a node, and of logins at registries."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.client.api import Client, part_of
from towline.errors import OperatorError, Unavailable
from towline.model.views import ImagesFreedView, ImageView, LoginView, PullView


class ImageList(Struct, kw_only=True):
    images: list[ImageView]


class LoginList(Struct, kw_only=True):
    registries: list[LoginView]


class Images:
    """The images of the only node of a pool (None: of the one that is there from the start), or of ``node``
    (an id or a name)."""

    def __init__(self, client: Client, node: str | None = None, pool: str | None = None) -> None:
        self._client = client
        self._of = {"node": node, "pool": pool}

    async def list(self) -> list[ImageView]:
        """The latest used first, behind those that are being pulled."""
        return (await self._client.get(ImageList, "/v1/images", **self._of)).images

    async def pull(
        self, reference: str, base_dir: str | Path | None = None
    ) -> AsyncGenerator[PullView, None]:
        """How far it is, and at last the image. Raises OperatorError where there is none to be had."""
        body = {"reference": reference, "base_dir": None if base_dir is None else str(base_dir)}
        stream = self._client.stream("/v1/images/pull", method="POST", body=body, **self._of)
        async with stream as chunks:
            rest = b""
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _pulled(msgspec.json.decode(line, type=PullView))

    async def remove(self, reference: str, base_dir: str | Path | None = None) -> ImagesFreedView:
        """By a name or a digest. Raises NotFound, and RequestError for one that is in use."""
        body = {"reference": reference, "base_dir": None if base_dir is None else str(base_dir)}
        return await self._client.post(ImagesFreedView, "/v1/images/remove", body, **self._of)

    async def collect(self, *, dry_run: bool = False, everything: bool = False) -> ImagesFreedView:
        """Get below the node's budget, or with ``everything`` remove all that is not in use."""
        body = {"dry_run": dry_run, "everything": everything}
        return await self._client.post(ImagesFreedView, "/v1/images/gc", body, **self._of)


def _pulled(view: PullView) -> PullView:
    if view.error is not None:
        raise (Unavailable if view.reason == "unavailable" else OperatorError)(view.error)
    return view


async def pulled(images: Images, reference: str, base_dir: str | Path | None = None) -> ImageView:
    """Pull without telling how far it is."""
    async with aclosing(images.pull(reference, base_dir)) as views:
        async for view in views:
            if view.image is not None:
                return view.image
    raise Unavailable("The server ended before the image was there: repeat the request.")


class Registries:
    """Logins at registries: for every task whose image is there."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[LoginView]:
        return (await self._client.get(LoginList, "/v1/registries")).registries

    async def login(self, registry: str, user: str, password: str) -> LoginView:
        """Keep a login in place of an older one. Nothing is asked of the registry."""
        body = {"user": user, "password": password}
        path = f"/v1/registries/{part_of(registry, 'registry')}"
        return msgspec.json.decode(await self._client.request("PUT", path, body=body), type=LoginView)

    async def logout(self, registry: str) -> None:
        """Raises NotFound."""
        await self._client.request("DELETE", f"/v1/registries/{part_of(registry, 'registry')}")
