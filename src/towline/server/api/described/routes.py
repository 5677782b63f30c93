"""``/v1/openapi.json``."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from towline.build import build

AnyRequest = Request[Any, Any, Any]


@get("/v1/openapi.json", media="application/json")
async def show_description(request: AnyRequest) -> Response[bytes]:
    """This document: the API as OpenAPI 3.1"""
    from towline.server.api.described.document import (
        describe,
    )  # few ask, and it loads what nothing else needs

    return Response(msgspec.json.encode(describe(request.app, build())), media_type="application/json")
