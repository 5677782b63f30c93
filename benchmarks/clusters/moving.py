"""How pools move: many of them on three servers, of which one dies, comes back, and one is stopped."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.clusters.shared_store import make_pools, servers
from benchmarks.figures import Figure, Options, Report
from benchmarks.home import PATIENCE_S, Home, cpu_of
from towline.client import Client

SERVERS, POOLS = 3, 50
IDLE_S = 10.0
LOOK_S = 0.05


def run(options: Options) -> Report:
    """Whose leader answers is asked of a server to which nothing happens."""
    pools = options.count(POOLS, least=4)
    with servers(SERVERS) as (homes, database):
        asked, killed, stopped = homes
        make_pools(asked, *(f"p{number}" for number in range(pools - 1)))
        _until(asked, lambda led: _is_even(led, pools, SERVERS))
        before = [cpu_of(home.pid("server"))[0] for home in homes]
        time.sleep(IDLE_S)
        idle = [cpu_of(home.pid("server"))[0] - spent for home, spent in zip(homes, before, strict=True)]
        connections = database.backends()
        dead_s = _struck(asked, killed, signal.SIGKILL, pools)
        killed.start_server(arguments=("--without-agent",))
        even_s = _until(asked, lambda led: _is_even(led, pools, SERVERS))
        stop_s = _struck(asked, stopped, signal.SIGTERM, pools)
    figures = [
        Figure(name="killed: until all pools are led", value=dead_s, unit="s", most=10),
        Figure(name="back: until the pools are spread evenly", value=even_s, unit="s"),
        Figure(name="stopped: until all pools are led", value=stop_s, unit="s"),
        Figure(name="idle: CPU of a server, of a core", value=max(idle) / IDLE_S * 100, unit="%"),
        Figure(name="connections to the database", value=connections, most=10 * SERVERS),
    ]
    method = f"{pools} pools without nodes on {SERVERS} servers and one PostgreSQL, default times"
    return Report(name="moving", title="pools move between servers", method=method, figures=figures)


def _struck(asked: Home, home: Home, number: int, pools: int) -> float:
    """Seconds from the signal until others lead all pools; a server that stops may take longer to end."""
    address = home.env["TOWLINE_LISTEN"]
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(home.end_server, number)
        took_s = _until(asked, lambda led: led.total() == pools and address not in led)
        ended.result()
    return took_s


def _is_even(led: Counter[str], pools: int, among: int) -> bool:
    return led.total() == pools and len(led) == among and max(led.values()) - min(led.values()) <= 1


def _until(asked: Home, true: Callable[[Counter[str]], bool]) -> float:
    """Seconds until it is so of how many pools each server leads and answers for."""
    return asyncio.run(_looked(asked, true))


async def _looked(asked: Home, true: Callable[[Counter[str]], bool]) -> float:
    begun_s = time.monotonic()
    async with asyncio.timeout(2 * PATIENCE_S), Client(asked.path / "tow.sock") as client:
        while True:
            views = await client.pools()
            led = Counter(view.address for view in views if view.address and view.nodes is not None)
            if true(led):
                return time.monotonic() - begun_s
            await asyncio.sleep(LOOK_S)
