"""Which requests any server answers, whoever leads: facts, which are in the store, and what is about the
server itself. All others are the leader's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from towline.server.access.rules import LINK, WEBSOCKET

ANYWHERE = (
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/authority"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/server"),
    ("POST", "/v1/server/stop"),
    ("GET", "/v1/servers"),
    ("GET", "/v1/whoami"),
    ("GET", "/v1/pools"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{job}"),
    ("GET", "/v1/jobs/{job}/spec"),
    ("GET", "/v1/jobs/{job}/events"),
    ("GET", "/v1/jobs/{job}/wait"),
    ("GET", "/v1/jobs/{job}/tasks/{task}"),
    ("GET", "/v1/events"),
    ("GET", "/v1/secrets"),
    ("GET", "/v1/registries"),
    ("GET", "/v1/tokens"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/agent/attempts/{attempt}/artifacts"),
    ("PUT", "/v1/agent/attempts/{attempt}/artifacts"),
    ("PUT", "/v1/agent/attempts/{attempt}/artifacts/{digest}"),
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}"),
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}/{index}"),
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}/{index}/{digest}"),
    (WEBSOCKET, LINK),
)
"""(method, path with names in braces), as in access/rules.py."""

LASTING = (
    ("GET", "/v1/events/export"),
    ("GET", "/v1/jobs/{job}/tasks/{task}/elements/{index}/logs"),
    ("GET", "/v1/jobs/{job}/tasks/{task}/elements/{index}/artifacts/content"),
    ("POST", "/v1/gc"),
    ("POST", "/v1/images/pull"),
    ("POST", "/v1/images/remove"),
    ("POST", "/v1/images/gc"),
)
"""What is the leader's and may last: its answer goes on while the caller reads, or waits for nodes."""


def _patterns(templates: Sequence[tuple[str, str]]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (method, re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", template) + r"/?\Z"))
        for method, template in templates
    )


_ANYWHERE, _LASTING = _patterns(ANYWHERE), _patterns(LASTING)


def is_anywhere(method: str, path: str) -> bool:
    """Whether each server answers such a request itself. HEAD is as GET."""
    return _is_one_of(_ANYWHERE, method, path)


def is_lasting(method: str, path: str) -> bool:
    """Whether such a request may go on for as long as its caller likes."""
    return _is_one_of(_LASTING, method, path)


def _is_one_of(patterns: Sequence[tuple[str, re.Pattern[str]]], method: str, path: str) -> bool:
    wanted = "GET" if method == "HEAD" else method
    return any(wanted == known and pattern.match(path) for known, pattern in patterns)
