"""Which requests get a row of the audit, and how many those of nobody get."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from towline.identity.roles import Principal, Role
from towline.server.access import flood
from towline.server.access.audit import Audit
from towline.server.access.auditing import audited
from towline.server.access.flood import ADDRESSES, IN_ALL, OTHERS, PER_ADDRESS, Flood
from towline.server.access.guard import PRINCIPAL
from towline.store.access import AuditRow

ADA = Principal(name="token ada", role=Role.VIEWER, namespace="default")


class Kept:
    """In place of the audit's store."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.news = asyncio.Condition()

    async def audit_append(self, rows: list[AuditRow]) -> None:
        async with self.news:
            self.rows += rows
            self.news.notify_all()


async def ask(app: Any, status: int, source: str, who: Principal | None = None) -> None:
    scope = {
        "type": "http", "method": "POST", "path": "/v1/enrol", "client": (source, 1),
        "state": {PRINCIPAL: who, "status": status},
    }  # fmt: skip

    async def send(_: Any) -> None:
        pass

    await app(scope, None, send)


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": scope["state"]["status"], "headers": []})


async def test_refused_requests_of_nobody_are_counted_beyond_the_first_ones() -> None:
    kept = Kept()
    app = audited(answering, Audit(cast("Any", kept)), window_s=0.5)
    for _ in range(PER_ADDRESS + 30):
        await ask(app, 401, "192.0.2.1")
    await ask(app, 200, "192.0.2.1")  # who is let in is told of always,
    await ask(app, 403, "192.0.2.1", ADA)  # and so is somebody who is known
    async with asyncio.timeout(30), kept.news:
        await kept.news.wait_for(lambda: any(row.action == "refused" for row in kept.rows))
    assert [row.status for row in kept.rows] == [401] * PER_ADDRESS + [200, 403, 401]
    last = kept.rows[-1]
    assert (last.who, last.source) == ("nobody", "192.0.2.1")
    assert last.target == "30 further requests within 0.5 s"
    await ask(app, 401, "192.0.2.1")  # another window
    assert kept.rows[-1].action == "POST /v1/enrol"


def test_rows_are_bounded_however_many_addresses_there_are() -> None:
    one = Flood()
    told = sum(one.told(f"10.0.{n // 250}.{n % 250}") for n in range(1000))
    assert told == IN_ALL
    assert len(one.counts) == ADDRESSES + 1
    assert one.counts[-1] == (OTHERS, 1000 - IN_ALL - ADDRESSES)


@pytest.mark.parametrize(
    ("source", "group"),
    [
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("socket", "socket"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(source: str, group: str) -> None:
    assert flood.group_of(source) == group
