"""What a request's handlers work with: the parts of the pool that the request is about."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.errors import NotFound, Unavailable
from towline.server.api.service import Service
from towline.server.facts import Facts
from towline.store.memory import MemoryStore


class Seat:
    pool = "default"


async def test_a_job_of_the_same_name_that_has_just_come_elsewhere_is_not_taken_for_the_pools_own() -> None:
    store = MemoryStore()
    parts: dict[str, Any] = dict.fromkeys(
        ("seats", "asking", "vault", "logins", "secrets", "stop"), cast("Any", None)
    )
    service = Service(seat=cast("Any", Seat()), store=store, facts=Facts(store, "default"), **parts)
    for seq, (pool, job) in enumerate((("default", "j1"), ("east", "j2")), 1):
        leader = await Writing.lead(store, pool)
        await leader.commit(jobs=[rows.job(job, seq, pool=pool, name="same")], specs=[rows.spec(job)])
        if pool == "default":
            assert (await service.find("same")).id == "j1"
    with pytest.raises(Unavailable, match="in the pool east"):
        await service.find("same")
    assert (await service.find("j1")).id == "j1"
    with pytest.raises(NotFound):
        await service.find("nothing")
