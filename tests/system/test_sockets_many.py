"""R50: a thousand sockets on one gateway, each hearing everything as it happens."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import datetime

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect

from processors import commands
from processors.settings import Addresses
from tests.system.api import gateway
from tests.system.engine import definition, engine

SOCKETS = 1_000
EXECUTIONS = 20
AT_ONCE = 50  # handshakes
HEARD_S_MAX = 60.0


async def heard(socket: ClientConnection, count: int) -> list[tuple[float, str]]:
    """When each of so many events came, and its bytes."""
    found: list[tuple[float, str]] = []
    while len(found) < count:
        said = str(await socket.recv(decode=True))
        if '"specversion"' in said:
            found.append((time.time(), said))
    return found


@pytest.mark.slow
async def test_a_thousand_sockets_hear_all_of_it(database: str, redis_url: str, capsys):
    addresses = Addresses(database, redis_url)
    async with engine(addresses) as on, gateway(addresses) as url, AsyncExitStack() as open_:
        made = commands.create_workflow(definition=definition(1))
        await on.client.call(made)
        path = f"{url.replace('http', 'ws')}/ws/workflows/{made.root}?type=ExecutionStarted"
        turn = asyncio.Semaphore(AT_ONCE)

        async def opened() -> ClientConnection:
            async with turn:
                socket = await open_.enter_async_context(connect(path, ping_interval=None))
                await socket.recv()  # "subscribed"
                return socket

        began = time.monotonic()
        sockets = await asyncio.gather(*(opened() for _ in range(SOCKETS)))
        opening = time.monotonic() - began
        hearing = [asyncio.create_task(heard(one, EXECUTIONS)) for one in sockets]
        for _ in range(EXECUTIONS):
            await on.client.call(commands.start_execution(made.root))
            await asyncio.sleep(0.5)  # one by one: how long each takes to be everywhere
        async with asyncio.timeout(HEARD_S_MAX):
            all_of_them = await asyncio.gather(*hearing)
        first = [said for _, said in all_of_them[0]]
        assert len({orjson.loads(said)["id"] for said in first}) == EXECUTIONS
        assert all([said for _, said in one] == first for one in all_of_them)
        late = sorted(
            at - _seconds(orjson.loads(said)["time"]) for one in all_of_them for at, said in one
        )
        with capsys.disabled():
            print(
                f"\n{SOCKETS} sockets open in {opening:.1f} s; {len(late):,} events heard after"
                f" {late[len(late) // 2] * 1e3:.0f} / {late[-len(late) // 100] * 1e3:.0f} ms"
                " (p50 / p99, decision to client)"
            )


def _seconds(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()
