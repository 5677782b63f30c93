"""A token of a namespace sees and touches what is of it, and nothing else: tried on every route."""

from __future__ import annotations

import re
from typing import Any

import httpx2
from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.cluster.test_routes import ENDING, routes
from tests.integration.server_process import ScriptedAgent, job
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from towline.server.access.rules import NODE, PUBLIC, WEBSOCKET, Everywhere, rule_of
from towline.wire.exec import Open, encode

HIDDEN = "hidden-job"
SECRET = "hidden-secret"


async def _submit(http: httpx2.AsyncClient, name: str, key: str = "k", **tasks: dict[str, Any]) -> str:
    body = {"document": job(name, **(tasks or {"t": {}})), "params": {}, "base_dir": None}
    answer = await http.post("/v1/jobs", json=body, headers={"idempotency-key": key})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_no_route_shows_or_changes_anything_of_another_namespace(cluster: ClusterServer) -> None:
    """As an admin of a namespace, which may most of what a namespace is asked."""
    mine = await cluster.token("mine", "admin", namespace="team-a")
    other = await cluster.token("other", "admin", namespace="team-b")
    agent = ScriptedAgent(cluster.home / "tow.sock")
    agent.react = lambda _: None
    await agent.connect()
    async with cluster.caller(other) as http:
        hidden = await _submit(http, HIDDEN)
        await http.put(f"/v1/secrets/{SECRET}", json={"value": "dmFsdWU="})
    wrong: list[str] = []
    async with cluster.caller(mine) as http:
        for method, template in routes():
            rule = rule_of(method, template)
            if rule in (PUBLIC, NODE) or (method, template) == ENDING:
                continue
            for named in (hidden, HIDDEN):
                path = re.sub(r"{(job|task|index|name|token)}", lambda part, named=named: {
                    "job": named, "task": "t", "index": "0", "name": SECRET, "token": "other",
                }[part[1]], template)  # fmt: skip
                path = re.sub(r"{[a-z]+}", "nothing", path)
                status, text = await _ask(cluster, http, mine, method, path)
                if isinstance(rule, Everywhere) and status != 403:
                    wrong.append(f"{method} {path}: {status} in a namespace alone")
                if "{job}" in template and status != 404:
                    wrong.append(f"{method} {path}: {status}")
                if (HIDDEN in text and named != HIDDEN) or (SECRET in text and SECRET not in path):
                    wrong.append(f"{method} {path} shows it: {text[:200]}")
    assert wrong == []
    async with cluster.caller(other) as http:
        after = (await http.get(f"/v1/jobs/{hidden}")).json()
        assert (after["state"], after["name"], after["counts"]["cancelled"]) == ("running", HIDDEN, 0)
        secrets = (await http.get("/v1/secrets")).json()["secrets"]
        assert [(secret["name"], secret["version"]) for secret in secrets] == [(SECRET, 1)]
        assert {token["name"] for token in (await http.get("/v1/tokens")).json()["tokens"]} == {"other"}
    await agent.close()


async def _ask(
    cluster: ClusterServer, http: httpx2.AsyncClient, token: str, method: str, path: str
) -> tuple[int, str]:
    """(status, body); of a session in a container, how it was closed."""
    if method != WEBSOCKET:
        content = b'{"priority": 1}' if path.endswith("/priority") else b"{}"
        body = {"content": content} if method in ("POST", "PUT") else {}
        query = {"file": "x"} if path.endswith("/content") else {}
        answer = await http.request(method, path, params=query, **body)  # type: ignore[arg-type]
        return answer.status_code, answer.text
    url = f"wss{cluster.url.removeprefix('https')}{path}"
    headers = {"authorization": f"Bearer {token}"}
    async with connect(url, ssl=cluster.context(), additional_headers=headers, proxy=None) as socket:
        try:
            await socket.send(encode([Open(argv=("true",))]))
            said = await socket.recv(decode=False)
            return (404 if b"There is no job" in said else 101), ""
        except ConnectionClosed as closed:
            reason = "" if closed.rcvd is None else closed.rcvd.reason
            return (404 if "There is no job" in reason else 101), ""


async def test_keys_names_and_secrets_are_each_namespaces_own(cluster: ClusterServer) -> None:
    tokens = [await cluster.token(name, "submitter", namespace=f"team-{name}") for name in ("a", "b")]
    ids: list[str] = []
    for token in tokens:
        async with cluster.caller(token) as http:
            ids.append(await _submit(http, "same", key="same"))
            assert [each["id"] for each in (await http.get("/v1/jobs")).json()["jobs"]] == [ids[-1]]
            assert (await http.get("/v1/jobs/same")).json()["id"] == ids[-1]
            events = (await http.get("/v1/events")).json()["events"]
            assert {event["job"] for event in events} - {None} == {ids[-1]}
    async with cluster.caller(tokens[0]) as http:
        assert (await http.put("/v1/secrets/s", json={"value": "b25l"})).status_code == 200
        await _submit(http, "with", key="with", t={"secrets": {"S": "s"}})
    async with cluster.caller(tokens[1]) as http:
        body = {"document": job("with", t={"secrets": {"S": "s"}}), "params": {}, "base_dir": None}
        assert "there is no secret 's'" in (await http.post("/v1/jobs", json=body)).text
    # Who is of all namespaces says which one is meant.
    async with cluster.caller(cluster.tokens["admin"]) as http:
        assert (await http.get(f"/v1/jobs/{ids[0]}")).status_code == 404
        found = await http.get("/v1/jobs/same", headers={"towline-namespace": "team-b"})
        assert found.json()["id"] == ids[1]
        assert (await http.get("/v1/jobs", headers={"towline-namespace": "Team"})).status_code == 400


MADE = [
    (False, {"role": "viewer"}, 201, "default"),
    (False, {"role": "admin"}, 201, "*"),
    (False, {"role": "viewer", "namespace": "*"}, 201, "*"),
    (False, {"role": "viewer", "namespace": "-"}, 400, None),
    (True, {"role": "admin"}, 201, "team-a"),
    (True, {"role": "viewer", "namespace": "team-b"}, 403, None),
    (True, {"role": "viewer", "namespace": "*"}, 403, None),
]
"""(by an admin of team-a or of the machine, the token, the status, its namespace)."""


async def test_a_token_is_of_its_makers_namespace(cluster: ClusterServer) -> None:
    async with cluster.caller(await cluster.token("maker", "admin", namespace="team-a")) as theirs:
        for number, (by_them, body, status, namespace) in enumerate(MADE):
            http = theirs if by_them else cluster.http
            answer = await http.post("/v1/tokens", json={"name": f"made{number}", **body})
            assert answer.status_code == status, (body, answer.text)
            assert answer.json().get("namespace") == namespace, body
