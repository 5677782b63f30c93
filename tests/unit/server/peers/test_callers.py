"""Whom a request is from that came from another server, and who cannot say so."""

from __future__ import annotations

import datetime
import ssl
from typing import Any, cast

import pytest
from litestar.types import Scope

from towline.identity.certificates import make_authority, make_key, make_request, sign_node
from towline.identity.roles import LOCAL, Principal
from towline.server.access.authority import Authority
from towline.server.access.enrolments import Enrolments
from towline.server.access.guard import PRINCIPAL, remote_door
from towline.server.access.tokens import Tokens
from towline.server.peers.callers import HEADER, PASSED_ON, SUBJECT, Caller, encode, is_server
from towline.server.process.http import CERTIFICATE
from towline.store.memory import MemoryStore

NODE = "node-0123456789abcdef"
NOW = datetime.datetime.now(datetime.UTC)
PAIR = make_authority("test", 30, NOW)


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


def node_certificate(name: str) -> bytes:
    now = datetime.datetime.now(datetime.UTC)  # after its enrolment
    return der(sign_node(PAIR, make_request(make_key(), name), name, 3, now))


class Doors:
    def __init__(self) -> None:
        store = MemoryStore()
        self.tokens = Tokens(store)
        self.authority = Authority(PAIR)
        self.enrolments = Enrolments(store, self.authority, self.tokens)
        self.scope: Any = None

    async def open(self) -> Doors:
        _, self.token = await self.tokens.create("ada", "submitter", "default", None)
        _, join = await self.tokens.create_join(1000, "default")
        await self.enrolments.enrol(join, NODE, "n1", make_request(make_key(), NODE))
        return self

    def server(self) -> bytes:
        return der(self.authority.peer(f"{SUBJECT}1").certificate)

    async def who(
        self, shown: bytes | None, caller: Caller | None, token: str | None = None
    ) -> Principal | None:
        headers = [] if caller is None else [(HEADER, encode(caller))]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        state = {} if shown is None else {CERTIFICATE: shown}
        self.scope = {"type": "http", "headers": headers, "client": ("10.0.0.2", 5), "state": state}

        async def app(scope: Scope, *_: object) -> None:
            return

        await remote_door(app, self.tokens, self.enrolments)(self.scope, cast("Any", None), cast("Any", None))
        return cast("Principal | None", self.scope["state"][PRINCIPAL])


@pytest.fixture
async def doors() -> Doors:
    return await Doors().open()


async def test_a_server_says_where_a_caller_is_and_the_token_who(doors: Doors) -> None:
    found = await doors.who(doors.server(), Caller(source="192.0.2.9"), doors.token)
    assert found is not None and found.name == "token ada"
    assert doors.scope["client"] == ("192.0.2.9", 0) and doors.scope["state"][PASSED_ON]
    assert await doors.who(doors.server(), Caller(source="192.0.2.9"), "tow_x_y") is None
    assert await doors.who(doors.server(), Caller(source="192.0.2.9")) is None
    assert await doors.who(doors.server(), None, doors.token) is None


async def test_a_server_vouches_for_its_socket_and_for_nodes(doors: Doors) -> None:
    assert await doors.who(doors.server(), Caller(source="socket of s1", local=True)) is LOCAL
    issued = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000) + 60_000  # after its enrolment
    found = await doors.who(doors.server(), Caller(source="x", node=NODE, issued_at=issued))
    assert found is not None and found.node == NODE and found.role is None
    assert await doors.who(doors.server(), Caller(source="x", node=NODE, issued_at=1)) is None
    assert await doors.who(doors.server(), Caller(source="x", node="node-f", issued_at=issued)) is None


async def test_nobody_else_is_believed(doors: Doors) -> None:
    forged = Caller(source="socket of s1", local=True)
    assert await doors.who(None, forged) is None
    found = await doors.who(None, forged, doors.token)
    assert found is not None and found.name == "token ada"
    assert doors.scope["client"] == ("10.0.0.2", 5)
    found = await doors.who(node_certificate(NODE), forged)
    assert found is not None and found.node == NODE
    assert PASSED_ON not in doors.scope["state"]


async def test_no_node_gets_a_servers_name(doors: Doors) -> None:
    _, join = await doors.tokens.create_join(1000, "default")
    with pytest.raises(Exception, match="node is"):
        await doors.enrolments.enrol(join, f"{SUBJECT}1", "n", make_request(make_key(), "x"))


def test_what_shows_a_server() -> None:
    assert is_server(der(Authority(PAIR).peer(f"{SUBJECT}1").certificate))
    assert not is_server(node_certificate(NODE))
    assert not is_server(b"nothing")
