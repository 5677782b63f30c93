"""A process that leads and commits as fast as it can, and says each commit that was acknowledged, until
another leads: then it says ``stale`` and ends."""

from __future__ import annotations

import asyncio
import sys

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.errors import StaleTerm
from towline.store.postgresql import PostgresStore


async def lead(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    leader = await Writing.lead(store, "default")
    _, event_no = await store.counters("default")
    try:
        while True:
            event_no += 1
            await leader.commit(
                events=[rows.event(event_no, term=leader.term)], elements=[rows.element("j1", event_no)]
            )
            sys.stdout.write(f"{event_no}\n")
            sys.stdout.flush()
    except StaleTerm:
        sys.stdout.write("stale\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    asyncio.run(lead(sys.argv[1]))
