"""What a node says over a link counts as long as it is a member, and of the pool that the link is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from towline.identity import certificates
from towline.server.api.cluster import agents
from towline.server.process.http import CERTIFICATE


class Cluster:
    """One node, enrolled for ``pool``, with a link to the seat of the pool ``a``."""

    def __init__(self) -> None:
        self.member = True
        self.pool = "a"
        self.access: Any = self
        self.enrolments: Any = self
        self.scope = {"state": {CERTIFICATE: b""}}

    def admits(self, node: str, issued_at: int) -> bool:
        return self.member

    async def frames(self) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(agents, "service_of", lambda _: made)
    monkeypatch.setattr(certificates, "issued_at_ms", lambda _: 0)
    return made


@pytest.mark.parametrize("change", [{"pool": "b"}, {"member": False}])
async def test_nothing_is_heard_of_a_node_that_has_gone_or_joined_another_pool(
    cluster: Cluster, change: dict[str, Any]
) -> None:
    heard: list[bytes] = []
    socket: Any = cluster
    async for frame in agents._of_a_member(socket, "n1", lambda: cluster.pool == "a", cluster.frames()):
        heard.append(frame)
        if frame == b"1":
            for name, value in change.items():
                setattr(cluster, name, value)
    assert heard == [b"0", b"1"]
