"""The API is as its OpenAPI document says: every operation of a real server, asked with what fits the
document and with what does not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks
from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.cluster.test_routes import routes
from tests.integration.server_process import PATIENCE_S, ScriptedAgent, job

from towline.server.access.rules import NODE, rule_of

EXAMPLES = 4
"""Of each operation that fit, and as many that do not."""
LEFT_OUT = {("POST", "/v1/server/stop")}
"""Ends the server."""


def no_failure(_: object, response: schemathesis.Response, __: object) -> None:
    """That no node is connected is none, and is told with 503."""
    assert response.status_code < 500 or response.status_code == 503, response.text


CHECKS: list[CheckFunction] = [
    no_failure,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


async def described(cluster: ClusterServer) -> dict[str, Any]:
    return (await cluster.http.get("/v1/openapi.json")).json()


async def test_every_route_is_described_with_a_summary(cluster: ClusterServer) -> None:
    document = await described(cluster)
    found = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    known = {one for one in routes() if one[0] not in ("WEBSOCKET", "HEAD")}
    assert sorted(known) == sorted(found)
    assert [one for one, operation in found.items() if not operation["summary"]] == []
    names = [operation["operationId"] for operation in found.values()]
    assert len(names) == len(set(names))


async def test_the_pool_that_a_request_is_about_is_described(cluster: ClusterServer) -> None:
    paths = (await described(cluster))["paths"]
    named = {
        path
        for path, operations in paths.items()
        for operation in operations.values()
        if any((one["name"], one["in"]) == ("pool", "query") for one in operation.get("parameters", []))
    }
    of_a_node = {f"/v1/nodes/{{node}}{what}" for what in ("", "/drain", "/undrain")}
    of_images = {f"/v1/images{what}" for what in ("", "/pull", "/remove", "/gc")}
    of_events = {"/v1/events", "/v1/events/export"}
    expected = {"/v1/queues", "/v1/queues/{name}", "/v1/nodes", "/v1/usage", "/v1/gc"}
    assert named == expected | of_a_node | of_images | of_events
    for path in named:  # each heeds it
        for method, operation in paths[path].items():
            (given,) = [one for one in operation["parameters"] if one["name"] == "pool"]
            assert given["required"] is False and given["description"]
            url = path.format(node="n1", name="default") + "?pool=nowhere"
            answer = await cluster.http.request(method.upper(), url, json={})
            assert answer.status_code == 404 and "no pool 'nowhere'" in answer.text, (method, path)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
async def test_answers_are_as_described(cluster: ClusterServer, tmp_path: Path) -> None:
    agent = ScriptedAgent(cluster.socket)
    await agent.connect()
    done = (await cluster.submit(job("done", main={"array": 3}))).json()["id"]
    await cluster.get(f"/v1/jobs/{done}/wait", timeout_s=30)
    real = {"job": done, "task": "main", "index": 1, "node": "n1", "name": "default", "pool": "default"}
    authority = tmp_path / "ca.pem"
    authority.write_text(cluster.authority)
    await agent.close()  # it does not answer all that nodes are asked
    ask = Asking(cluster.url, cluster.tokens["admin"], authority, real)
    schema = schemathesis.openapi.from_dict(await described(cluster))
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if (operation.method.upper(), operation.path) not in LEFT_OUT:
            await asyncio.to_thread(ask.all_of, operation)
            asked += 1
    assert asked == len(schema) - len(LEFT_OUT)
    assert cluster.process is not None
    assert cluster.process.poll() is None
    assert "a request failed" not in cluster.log()
    for status in (200, 201, 400, 401, 404, 422):
        assert ask.statuses[status] > 1, ask.statuses


class Asking:
    """Asks as an admin; of every two cases one names what there is, so that it gets a good answer."""

    def __init__(self, url: str, token: str, authority: Path, real: dict[str, Any]) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._authority = str(authority)
        self._session.headers["authorization"] = f"Bearer {token}"
        self._real = real
        self.statuses: Counter[int] = Counter()

    def all_of(self, operation: Any) -> None:
        count = 0

        def ask(case: schemathesis.Case) -> None:
            nonlocal count
            count += 1
            destructive = operation.method.upper() == "DELETE"
            if count % 2 and not destructive and case.path_parameters:
                case.path_parameters |= {n: self._real.get(n, v) for n, v in case.path_parameters.items()}
            query = case.query or {}
            if "timeout_s" in query:  # how long is not what is tried here
                query["timeout_s"] = 0
            response = case.call(
                base_url=self._url, session=self._session, timeout=PATIENCE_S, verify=self._authority
            )
            self.statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        self._run(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), ask)
        is_for_nodes = rule_of(operation.method.upper(), operation.path) is NODE  # an admin is refused
        if not is_for_nodes and (operation.body or any(operation.iter_parameters())):
            self._run(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), ask)

    def _run(self, strategy: Any, ask: Callable[[schemathesis.Case], None]) -> None:
        bounded = settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        bounded(given(case=strategy)(ask))()


async def test_what_nobody_can_mean_is_refused_for_good(cluster: ClusterServer) -> None:
    await cluster.submit(job("done", main={"array": 3}))
    for method, path, content in (
        ("GET", f"/v1/audit?before={10**30}", None),
        ("GET", f"/v1/jobs/done/tasks/main/elements/1/logs?attempt={10**30}", None),
        ("GET", f"/v1/jobs/done/tasks/main/elements/1/artifacts?attempt={10**30}", None),
        ("POST", "/v1/jobs", b'{"document": "\xff"}'),
        ("POST", "/v1/jobs/done/cancel", b'{"task": "\xff"}'),
    ):
        answer = await cluster.http.request(method, path, content=content)
        assert answer.status_code in (400, 422), (path, answer.text)
