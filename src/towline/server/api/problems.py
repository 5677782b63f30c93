"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from towline.errors import (
    Conflict,
    Damaged,
    Forbidden,
    InvalidDocument,
    NoNode,
    NotFound,
    OperatorError,
    RequestError,
    RetryError,
    StoreError,
    Unauthenticated,
    Unstorable,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

KINDS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (InvalidDocument, 422, "invalid_document", "The job file is not valid"),
    (NotFound, 404, "not_found", "There is no such thing"),
    (Conflict, 409, "conflict", "It does not go with what is there"),
    (Unauthenticated, 401, "unauthenticated", "The request shows no valid token"),
    (Forbidden, 403, "forbidden", "The caller may not do this"),
    (RequestError, 400, "bad_request", "The request is wrong"),
    (NoNode, 503, "no_node", "Not now: repeat the request"),
    (RetryError, 503, "unavailable", "Not now: repeat the request"),
    (Unstorable, 422, "unstorable", "The store does not take a value of the request"),
    (StoreError, 503, "store_unavailable", "The store does not take this now: repeat the request"),
    (Damaged, 500, "damaged", "What was kept is damaged"),
    (OperatorError, 500, "internal_error", "The server failed"),
)
"""(exception, status, type, title), the most special first."""


class ProblemView(msgspec.Struct, kw_only=True):
    where: str
    message: str
    remedy: str
    line: int | None


class ProblemDocument(msgspec.Struct, kw_only=True):
    type: str
    title: str
    status: int
    detail: str
    problems: list[ProblemView] = []


def to_response(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The exception handler of the whole API."""
    for kind, status, name, title in KINDS:
        if isinstance(error, kind):
            problems = error.problems if isinstance(error, InvalidDocument) else []
            views = [
                ProblemView(where=p.where, message=p.message, remedy=p.remedy, line=p.line) for p in problems
            ]
            return _response(status, name, title, str(error), views)
    if isinstance(error, HTTPException):
        return _response(*_of_http(error))
    structlog.get_logger("api").error("a request failed", path=request.url.path, exc_info=error)
    return _response(500, "internal_error", "The server failed", f"{type(error).__name__}: see its log")


def _of_http(error: HTTPException) -> tuple[int, str, str, str]:
    if error.status_code == 413:
        detail = "The request is too large: a job file of up to 64 MiB is taken."
        return 413, "too_large", "The request is too large", detail
    detail = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        for wrong in cast("list[dict[str, Any]]", error.extra):
            detail += f"; {wrong.get('key')}: {wrong.get('message')}"
    return error.status_code, "http", type(error).__name__, detail


def _response(
    status: int, name: str, title: str, detail: str, problems: list[ProblemView] | None = None
) -> Response[bytes]:
    document = ProblemDocument(
        type=f"urn:towline:problem:{name}",
        title=title,
        status=status,
        detail=detail,
        problems=problems or [],
    )
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return Response(msgspec.json.encode(document), status_code=status, media_type=MEDIA_TYPE, headers=headers)
