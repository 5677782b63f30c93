"""The OpenAPI document of the API, made of its handlers: their docstrings, parameters, bodies and answers.

A handler says what its signature does not: ``body=`` the Struct of its body, ``media=`` the type of an
answer that is no JSON, ``statuses=`` those that it answers with besides its own, ``asks=`` and ``reads=`` the
parameters of the query and the headers that are heeded without being its parameters. What it needs a role
for stands in server/access/rules.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter
from litestar.response import Stream
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from towline.identity.roles import Role
from towline.model.schema import json_schema
from towline.server.access.rules import NODE, PUBLIC, Rule, rule_of
from towline.server.api.problems import MEDIA_TYPE, ProblemDocument
from towline.server.intake import Submission

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_PROBLEM = {"schema": {"$ref": _REF.format(name="ProblemDocument")}}
_ERRORS: Json = {
    "4XX": {"description": "The request is wrong, or refused", "content": {MEDIA_TYPE: _PROBLEM}},
    "503": {
        "description": "Not now: repeat the request",
        "headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
        "content": {MEDIA_TYPE: _PROBLEM},
    },
}
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "`tow token create` makes one."},
    "certificate": {"type": "mutualTLS", "description": "That of an enrolled node."},
}


def describe(app: Litestar, version: str) -> Json:
    """The document of all routes below /v1 and beside it, WebSockets left out: OpenAPI has no words for
    them."""
    found = sorted(_operations(app), key=lambda one: one[0])
    kinds = [ProblemDocument, Submission]
    for _, _, handler in found:
        kinds += [kind for kind in (_body(handler), _answer(handler)) if _is_struct(kind)]
    schemas = _schemas(dict.fromkeys(kinds))[1]
    schemas["Submission"]["properties"]["document"] = {"$ref": _REF.format(name="JobFile")}
    schemas["JobFile"] = {name: part for name, part in json_schema().items() if name != "$schema"}
    paths: dict[str, Json] = {}
    for template, method, handler in found:
        paths.setdefault(template, {})[method.lower()] = _operation(template, method, handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Towline",
            "version": version,
            "description": "The Python SDK and the commands use this API and no other.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }


def _operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """(path with names in braces, method, handler)."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods - {"HEAD", "OPTIONS"}):
                yield re.sub(r":[a-z]+}", "}", route.path), str(method), handler


def _operation(template: str, method: str, handler: HTTPRouteHandler) -> Json:
    text = " ".join((handler.fn.__doc__ or "").split())
    summary, _, more = text.partition(". ")
    rule = rule_of(method, template)
    operation: Json = {
        "operationId": handler.fn.__name__,
        "summary": summary.rstrip("."),
        "description": f"{more} {_needs(rule)}".strip(),
        "security": _security(rule),
        "responses": _responses(handler),
    }
    parameters = [_parameter(name, field) for name, field in _parameters(handler)]
    for place, opt in (("query", "asks"), ("header", "reads")):
        parameters += [_heeded(name, place, text) for name, text in handler.opt.get(opt, {}).items()]
    if parameters:
        operation["parameters"] = parameters
    body = _body(handler)
    if body is not None:
        schema = {"schema": _schema(body)}
        operation["requestBody"] = {"required": _is_required(body), "content": {"application/json": schema}}
    return operation


def _needs(rule: Rule) -> str:
    if isinstance(rule, Role):
        return f"Role: {rule.word}."
    return "Needs no token." if rule is PUBLIC else "For nodes."


def _security(rule: Rule) -> list[Json]:
    if rule is PUBLIC:
        return []
    return [{"certificate" if rule is NODE else "token": []}]


# --- what is sent -------------------------------------------------------------------------------------
def _parameters(handler: HTTPRouteHandler) -> list[tuple[str, FieldDefinition]]:
    found = handler.parsed_fn_signature.parameters.items()
    return [(name, field) for name, field in found if name != "request"]


def _parameter(name: str, field: FieldDefinition) -> Json:
    given = field.kwarg_definition
    is_path = isinstance(given, PathParameter)
    schema = _schema(_without_none(field.annotation))
    for bound, word in _BOUNDS.items():
        if (limit := getattr(given, bound, None)) is not None:
            schema[word] = limit
    if not is_path and field.default not in (None, ...) and field.has_default:
        schema["default"] = field.default
    return {
        "name": getattr(given, "query", None) or getattr(given, "name", None) or name,
        "in": "path" if is_path else "query",
        "required": is_path or not field.has_default,
        "schema": schema,
    }


def _heeded(name: str, place: str, text: str) -> Json:
    return {
        "name": name,
        "in": place,
        "required": False,
        "description": text,
        "schema": {"type": "string"},
    }


def _body(handler: HTTPRouteHandler) -> Any:
    return handler.opt.get("body")


def _is_required(kind: Any) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


# --- what is answered ---------------------------------------------------------------------------------
def _answer(handler: HTTPRouteHandler) -> Any:
    """The type of its JSON; None where it answers with nothing, or with something else."""
    kind = handler.parsed_fn_signature.return_type.annotation
    if get_origin(kind) is Response:
        kind = get_args(kind)[0]
    return None if "media" in handler.opt or kind in (None, NoneType, Stream) else kind


def _responses(handler: HTTPRouteHandler) -> Json:
    kind, media = _answer(handler), handler.opt.get("media")
    good: Json = {"description": "As asked"}
    if media is not None:
        good["content"] = {media: {}}
    elif kind is not None:
        good["content"] = {"application/json": {"schema": _schema(kind)}}
    statuses: Sequence[int] = handler.opt.get("statuses", ())
    return _ERRORS | {str(status): good for status in (handler.status_code, *statuses)}


# --- types --------------------------------------------------------------------------------------------
def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _schema(kind: Any) -> Json:
    return dict(_schemas([kind])[0][0])


def _schemas(kinds: Iterable[Any]) -> tuple[tuple[Json, ...], Json]:
    return msgspec.json.schema_components(
        kinds, schema_hook=lambda _: {"description": "Anything"}, ref_template=_REF
    )


def _without_none(kind: Any) -> Any:
    """Nothing in a query is null: it is left out."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return Union[tuple(part for part in get_args(kind) if part is not NoneType)]  # noqa: UP007 - made here
