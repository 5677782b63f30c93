"""A process that commits as fast as it can and says each commit that was acknowledged, until it is killed."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.store.sqlite import SqliteStore

EVENTS_A_COMMIT = 20


def commit_for_ever(path: str, acknowledged: Connection) -> None:
    asyncio.run(_commit_for_ever(path, acknowledged))


async def _commit_for_ever(path: str, acknowledged: Connection) -> None:
    store = SqliteStore(path)
    await store.open()
    leader = await Writing.lead(store, "default")
    _, event_no = await store.counters("default")
    if event_no == 0:
        await leader.submit("j1", 1)
    while True:
        made = [rows.event(event_no + n, "j1", text="a fact") for n in range(1, EVENTS_A_COMMIT + 1)]
        elements = [rows.element("j1", row.number) for row in made]
        attempts = [rows.attempt("j1", row.number) for row in made]
        await leader.commit(elements=elements, attempts=attempts, events=made)
        event_no += EVENTS_A_COMMIT
        acknowledged.send(event_no)
