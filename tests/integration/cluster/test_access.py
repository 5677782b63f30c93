"""Tokens, nodes that join, and the audit, over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.server_process import ScriptedAgent, job
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from towline.agent.cluster.dialing import dial_cluster
from towline.agent.cluster.leasing import NodeLease
from towline.agent.cluster.membership import Membership, join
from towline.agent.cluster.servers import Servers
from towline.agent.supervision.kernel import boottime_ms
from towline.agent.supervision.leasing.files import LeaseFile
from towline.core.lease import Lease
from towline.errors import RequestError
from towline.identity.certificates import Pair, make_authority, make_key, make_request, sign_node
from towline.identity.joining import parse_join
from towline.identity.tls import client_context
from towline.wire.messages import VERSION, Hello, LeaseTimes, Refused, decode_from_server, encode

NODE = "node-0123456789abcdef"
OTHER = "node-fedcba9876543210"


async def joined(cluster: ClusterServer, folder: Path, node: str = NODE, **fields: str) -> Membership:
    await asyncio.to_thread(join, folder, parse_join(await cluster.join_link(**fields)), node, "n1")
    return Membership(folder)


def a_hello(node: str, name: str = "n1") -> Hello:
    return Hello(
        version=VERSION, build="test", node=node, name=name, instance="i", boot_id="b", cpu_milli=1000,
        memory_bytes=2**30, pids=100, labels={}, runtimes={"process": None},
    )  # fmt: skip


async def until_gone(cluster: ClusterServer, node: str) -> None:
    """Until the end of a node's link has been heard of."""
    async with asyncio.timeout(10):
        while (await cluster.http.get(f"/v1/nodes/{node}")).json()["state"] == "ready":  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


async def hello(cluster: ClusterServer, context: ssl.SSLContext, node: str, name: str = "n1") -> str:
    """What the server says to a node's Hello: the tag of its first message, or why it refuses."""
    url = f"wss{cluster.url.removeprefix('https')}/v1/agent/link"
    async with connect(url, ssl=context, proxy=None, compression=None) as link:
        await link.send(encode([a_hello(node, name)]))
        frame = await link.recv()
        assert isinstance(frame, bytes)
        first = decode_from_server(frame)[0]
        return first.message if isinstance(first, Refused) else type(first).__name__


async def test_a_token_works_until_it_is_taken_back(cluster: ClusterServer) -> None:
    token = await cluster.token("ada", "submitter")
    async with cluster.caller(token) as http:
        assert (await http.get("/v1/whoami")).json() == {
            "name": "token ada", "role": "submitter", "namespace": "default",
        }  # fmt: skip
        assert (await http.post("/v1/jobs", json={"document": job(a={}), "params": {}})).status_code == 201
        assert (await cluster.http.delete("/v1/tokens/ada")).json()["token"] is None
        assert (await http.get("/v1/whoami")).status_code == 401
    assert (await cluster.http.delete("/v1/tokens/ada")).status_code == 404


async def test_a_token_ends_with_its_lifetime_and_its_text_is_kept_nowhere(cluster: ClusterServer) -> None:
    token = await cluster.token("short", "viewer", lifetime="1ms")
    async with cluster.caller(token) as http:
        assert (await http.get("/v1/jobs")).status_code == 401
    secret = token.split("_", 2)[2]  # which may have such a character itself
    for path in cluster.home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    listed = (await cluster.http.get("/v1/tokens")).json()["tokens"]
    assert [row["name"] for row in listed] == ["admin", "short", "submitter", "viewer"]
    assert all(row["token"] is None for row in listed)


async def test_a_wrong_token_is_not_made(cluster: ClusterServer) -> None:
    for body, says in (
        ({"name": "x", "role": "root"}, "viewer, submitter, admin"),
        ({"name": "", "role": "viewer"}, "name is ''"),
        ({"name": "viewer", "role": "viewer"}, "already"),
        ({"name": "x", "role": "viewer", "lifetime": "soon"}, "lifetime is 'soon'"),
        ({"name": "x"}, "role"),
    ):
        answer = await cluster.http.post("/v1/tokens", json=body)
        assert answer.status_code == 400, body
        assert says in answer.text
    listed = (await cluster.http.get("/v1/tokens")).json()["tokens"]
    assert [row["name"] for row in listed] == ["admin", "submitter", "viewer"]


async def test_tokens_nodes_and_the_authority_outlive_the_server(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    member = await joined(cluster, tmp_path / "m")
    authority = cluster.authority
    cluster.process.kill()  # type: ignore[union-attr]
    await cluster.ended()
    await cluster.start()
    assert cluster.authority == authority
    async with cluster.caller(cluster.tokens["viewer"]) as http:
        assert (await http.get("/v1/nodes")).status_code == 200
    assert await hello(cluster, member.context(), NODE) == "Welcome"


# --- nodes --------------------------------------------------------------------------------------------
async def test_a_join_link_makes_one_node_once(cluster: ClusterServer, tmp_path: Path) -> None:
    link = parse_join(await cluster.join_link())
    await asyncio.to_thread(join, tmp_path / "one", link, NODE, "n1")
    assert await hello(cluster, Membership(tmp_path / "one").context(), NODE) == "Welcome"
    await asyncio.to_thread(join, tmp_path / "one", link, NODE, "n1")  # it is one already
    with pytest.raises(RequestError, match="was used"):
        await asyncio.to_thread(join, tmp_path / "two", link, OTHER, "n2")
    assert not (tmp_path / "two").exists()


async def test_a_node_speaks_for_itself_only(cluster: ClusterServer, tmp_path: Path) -> None:
    member = await joined(cluster, tmp_path / "m")
    await joined(cluster, tmp_path / "other", OTHER)
    assert (
        await hello(cluster, member.context(), OTHER) == f"the certificate is that of {NODE}, not of {OTHER}"
    )
    async with cluster.caller(context=member.context()) as http:
        assert (await http.get("/v1/jobs")).status_code == 403
        assert (await http.get("/v1/nodes")).status_code == 403


async def test_certificates_that_the_authority_has_not_signed_open_nothing(cluster: ClusterServer) -> None:
    import datetime

    forged = make_authority("Towline", 1, datetime.datetime.now(datetime.UTC))
    key = make_key()
    pair = Pair(
        key=key,
        certificate=sign_node(forged, make_request(key, NODE), NODE, 1, datetime.datetime.now(datetime.UTC)),
    )
    with pytest.raises((OSError, InvalidMessage)):  # the handshake fails, which is seen at the first read
        await hello(cluster, client_context(cluster.authority.encode(), pair), NODE)


async def test_a_node_renews_its_certificate(cluster: ClusterServer, tmp_path: Path) -> None:
    member = await joined(cluster, tmp_path / "m")
    before = (tmp_path / "m" / "node.pem").read_bytes()
    await asyncio.to_thread(member.renew, NODE)
    assert (tmp_path / "m" / "node.pem").read_bytes() != before
    assert await hello(cluster, Membership(tmp_path / "m").context(), NODE) == "Welcome"
    assert not member.is_due


async def test_another_authority_is_refused_before_the_token_is_shown(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    link = await cluster.join_link()
    wrong = parse_join(link.rpartition("sha256:")[0] + "sha256:" + "0" * 64)
    with pytest.raises(RequestError, match="another cluster"):
        await asyncio.to_thread(join, tmp_path / "m", wrong, NODE, "n1")
    await asyncio.to_thread(join, tmp_path / "m", parse_join(link), NODE, "n1")  # the token is still good


async def test_a_join_link_can_be_listed_and_taken_back(cluster: ClusterServer, tmp_path: Path) -> None:
    kept, lost = [await cluster.join_link() for _ in range(2)]
    joins = (await cluster.http.get("/v1/tokens")).json()["joins"]
    assert [one["id"] for one in joins] == [parse_join(link).token.split("_")[1] for link in (kept, lost)]
    assert (await cluster.http.delete(f"/v1/tokens/{joins[1]['id']}")).status_code == 200
    with pytest.raises(RequestError, match="unknown, was used"):
        await asyncio.to_thread(join, tmp_path / "lost", parse_join(lost), NODE, "n1")
    await asyncio.to_thread(join, tmp_path / "kept", parse_join(kept), NODE, "n1")
    assert (await cluster.http.get("/v1/tokens")).json()["joins"] == []


async def test_a_join_link_makes_nobody_the_servers_own_node_or_one_that_is_there(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    (cluster.home / "node").mkdir()
    (cluster.home / "node" / "id").write_text(NODE)
    agent = ScriptedAgent(cluster.socket, node=OTHER)
    await agent.connect()
    link = parse_join(await cluster.join_link())
    for node in (NODE, OTHER):
        with pytest.raises(RequestError, match="already, without a link"):
            await asyncio.to_thread(join, tmp_path / "m", link, node, "n1")
    await agent.close()
    await until_gone(cluster, OTHER)
    with pytest.raises(RequestError, match="already, without a link"):  # it may come back
        await asyncio.to_thread(join, tmp_path / "m", link, OTHER, "n1")
    await asyncio.to_thread(join, tmp_path / "m", link, "node-00000000000000ff", "n1")


# --- the audit ----------------------------------------------------------------------------------------
async def test_what_was_to_change_something_is_in_the_audit(cluster: ClusterServer) -> None:
    async with cluster.caller(cluster.tokens["viewer"]) as http:
        await http.get("/v1/jobs")
        await http.put("/v1/queues/x", json={})
    async with cluster.caller() as http:
        await http.post("/v1/jobs", json={})
    await cluster.submit(job(a={}))
    entries = (await cluster.http.get("/v1/audit", params={"limit": 3})).json()["entries"]
    assert [(e["who"], e["action"], e["status"], e["source"]) for e in entries] == [
        ("local", "POST /v1/jobs", 201, "socket"),
        ("nobody", "POST /v1/jobs", 401, "127.0.0.1"),
        ("token viewer", "PUT /v1/queues/{name}", 403, "127.0.0.1"),
    ]
    assert entries[2]["target"] == "/v1/queues/x"
    page = (await cluster.http.get("/v1/audit", params={"limit": 2})).json()
    rest = (await cluster.http.get("/v1/audit", params={"before": page["next_before"], "limit": 1})).json()
    assert rest["entries"] == entries[2:]


async def test_the_audit_names_what_was_made_and_removed(cluster: ClusterServer, tmp_path: Path) -> None:
    await cluster.token("ada", "viewer")
    id = next(row["id"] for row in (await cluster.http.get("/v1/tokens")).json()["tokens"])
    await cluster.http.delete("/v1/tokens/ada")
    await joined(cluster, tmp_path / "m")
    await cluster.http.delete(f"/v1/nodes/{NODE}")
    entries = (await cluster.http.get("/v1/audit", params={"limit": 5})).json()["entries"]
    targets = [entry["target"] for entry in reversed(entries)]
    link = targets[2].rpartition(" ")[2]
    assert targets[0].startswith("/v1/tokens: token ada (")
    assert targets[1] == targets[0].replace("tokens", "tokens/ada", 1)
    assert targets[2:4] == [
        f"/v1/tokens/join: join link {link}",
        f"/v1/enrol: node n1 ({NODE}) by join link {link}",
    ]
    assert NODE in targets[4]
    assert len(id) == len(link) == 12


async def test_plain_http_is_not_answered(cluster: ClusterServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP" not in await reader.read(100)
    writer.close()


# --- metrics ------------------------------------------------------------------------------------------
async def test_prometheus_reads_what_has_happened_and_what_stands(cluster: ClusterServer) -> None:
    agent = ScriptedAgent(cluster.socket)
    await agent.connect()
    name = (await cluster.submit(job(a={"array": 3}))).json()["id"]
    await cluster.get(f"/v1/jobs/{name}/wait", timeout_s=30)
    async with cluster.caller(cluster.tokens["viewer"]) as http:
        answer = await http.get("/metrics")
    read = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert read["towline_attempts_ended_total", "default", "exited"] == 3
    assert read["towline_jobs_ended_total", "default", "succeeded"] == 1
    assert read["towline_jobs_submitted_total", "default"] == 1
    assert read["towline_nodes", "default", "ready"] == 1
    assert read["towline_queue_queued", "default", "default"] == 0
    assert read["towline_leading", "default"] == 1
    assert read["towline_open_links", "default"] == 1
    assert read["towline_commit_seconds_count", "default"] >= 2
    assert read["towline_pass_seconds_sum", "default"] > 0
    await agent.close()


async def test_whoever_shows_no_join_token_learns_nothing_and_sends_little(cluster: ClusterServer) -> None:
    body = {"token": "tow_x", "node": "anything", "name": "", "request": ""}
    async with cluster.caller() as http:
        assert (await http.post("/v1/enrol", json=body)).status_code == 403
        assert (await http.post("/v1/enrol", content=b" " * 100_000)).status_code == 413


async def test_nodes_are_not_told_to_end_with_the_server(cluster: ClusterServer, tmp_path: Path) -> None:
    member = await joined(cluster, tmp_path / "m")
    url = f"wss{cluster.url.removeprefix('https')}/v1/agent/link"
    said: list[str] = []
    async with connect(url, ssl=member.context(), proxy=None, compression=None) as link:
        await link.send(encode([a_hello(NODE)]))
        await link.recv()
        assert cluster.process is not None
        cluster.process.terminate()
        async for frame in link:
            assert isinstance(frame, bytes)
            said += [type(message).__name__ for message in decode_from_server(frame)]
    await cluster.ended()
    await cluster.start()
    assert "Goodbye" not in said


# --- forgetting ---------------------------------------------------------------------------------------
async def test_a_link_that_was_open_says_nothing_for_a_node_that_was_forgotten(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    member = await joined(cluster, tmp_path / "m")
    url = f"wss{cluster.url.removeprefix('https')}/v1/agent/link"
    async with connect(url, ssl=member.context(), proxy=None, compression=None) as link:
        assert (await cluster.http.delete("/v1/nodes/n1")).status_code == 200
        await link.send(encode([a_hello(NODE)]))
        frame = await link.recv()
        assert isinstance(frame, bytes)
        assert isinstance(decode_from_server(frame)[0], Refused)
    assert (await cluster.http.get("/v1/nodes")).json()["nodes"] == []


async def test_forgetting_takes_back_the_certificate_whatever_the_node_calls_itself(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    member = await joined(cluster, tmp_path / "m")  # as n1
    other = await joined(cluster, tmp_path / "other", OTHER)
    assert await hello(cluster, member.context(), NODE, "renamed") == "Welcome"
    assert await hello(cluster, other.context(), OTHER, "n1") == "Welcome"
    await until_gone(cluster, "renamed")
    await until_gone(cluster, "n1")
    assert (await cluster.http.delete("/v1/nodes/renamed")).status_code == 200
    with pytest.raises(InvalidStatus):
        await hello(cluster, member.context(), NODE)
    assert await hello(cluster, other.context(), OTHER) == "Welcome"


async def test_a_connected_node_is_cut_off_by_force_alone(cluster: ClusterServer, tmp_path: Path) -> None:
    member = await joined(cluster, tmp_path / "m")
    url = f"wss{cluster.url.removeprefix('https')}/v1/agent/link"
    async with connect(url, ssl=member.context(), proxy=None, compression=None) as link:
        await link.send(encode([a_hello(NODE)]))
        await link.recv()
        refused = await cluster.http.delete("/v1/nodes/n1")
        assert refused.status_code == 400
        assert "--force" in refused.json()["detail"]
        answer = await cluster.http.delete("/v1/nodes/n1", params={"force": "true"})
        assert answer.status_code == 200, answer.text
        assert (await cluster.http.get("/v1/nodes")).json()["nodes"] == []
        async with asyncio.timeout(10):
            await link.wait_closed()
    with pytest.raises(InvalidStatus):
        await hello(cluster, member.context(), NODE)


async def test_a_node_is_forgotten_in_its_own_pool_alone(cluster: ClusterServer, tmp_path: Path) -> None:
    (await cluster.http.post("/v1/pools", json={"pool": "gpu"})).raise_for_status()
    member = await joined(cluster, tmp_path / "m", pool="gpu")
    for which in ("n1", NODE):
        answer = await cluster.http.delete(f"/v1/nodes/{which}", params={"pool": "default"})
        assert answer.status_code == 404, answer.text
    assert await hello(cluster, member.context(), NODE) == "Welcome"
    await until_gone(cluster, "n1")
    assert (await cluster.http.delete("/v1/nodes/n1", params={"pool": "default"})).status_code == 404
    assert (await cluster.http.delete("/v1/nodes/n1", params={"pool": "gpu"})).status_code == 200


async def test_a_forgotten_node_joins_again_with_a_new_link(cluster: ClusterServer, tmp_path: Path) -> None:
    member = await joined(cluster, tmp_path / "m")
    assert (await cluster.http.delete("/v1/nodes/n1")).status_code == 200
    with pytest.raises(PermissionError, match="with a new link"):
        await dial_cluster(Servers(cluster.url), member.context)()
    member = await joined(cluster, tmp_path / "m")
    assert await hello(cluster, member.context(), NODE) == "Welcome"
    spare = await cluster.join_link()
    await asyncio.to_thread(join, tmp_path / "m", parse_join(spare), NODE, "n1")  # which needs it not
    await asyncio.to_thread(join, tmp_path / "other", parse_join(spare), OTHER, "n2")


async def test_a_node_that_changes_its_pool_leaves_the_old_pools_lease_behind(
    cluster: ClusterServer, tmp_path: Path
) -> None:
    """Terms of two pools do not compare: under a higher one the new pool's leases would never count."""
    (await cluster.http.post("/v1/pools", json={"pool": "gpu"})).raise_for_status()
    await joined(cluster, tmp_path / "m")
    granted = Lease(term=10**15, since_ms=1, until_ms=2, grace_ms=3)
    LeaseFile(str(tmp_path)).write(granted)
    await joined(cluster, tmp_path / "m")  # a node of this cluster already: nothing changes
    assert LeaseFile(str(tmp_path)).held == granted
    assert (await cluster.http.delete("/v1/nodes/n1")).status_code == 200
    await joined(cluster, tmp_path / "m", pool="gpu")
    lease = NodeLease(str(tmp_path))
    lease.welcomed(LeaseTimes(lease_ms=60_000, grace_ms=700), 1, boottime_ms())
    assert lease.term == 1
    assert LeaseFile(str(tmp_path)).held.until_ms > boottime_ms()


async def test_a_path_of_a_stranger_is_one_short_line_of_the_audit(cluster: ClusterServer) -> None:
    async with cluster.caller() as http:
        await http.post("/v1/x%0A2026-01-01 local 200" + "y" * 5000)
    entry = (await cluster.http.get("/v1/audit", params={"limit": 1})).json()["entries"][0]
    assert entry["target"].startswith("/v1/x%0A2026-01-01 local 200y")
    assert len(entry["target"]) < 400
    assert entry["action"] == f"POST {entry['target']}"
