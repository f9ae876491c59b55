"""Who does not read, or does not live, is dropped with a reason and slows nobody down (F52)."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import socket as sockets
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from processors import commands
from processors.api import server, socket_protocol
from processors.settings import Addresses
from tests.system.engine import definition, engine, until
from tests.system.sockets import Ear, closing, served

EVENTS = 120
INPUT = "x" * 200_000
DEAF = 40
GROWTH_BYTES_MAX = 300 * 1024 * 1024  # what was sent to all of them together is 960 MB


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


async def deaf(url: str, path: str) -> sockets.socket:
    """A client that shakes hands, and then never reads."""
    at = urlsplit(url)
    made = sockets.socket()
    made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (at.hostname, at.port))
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(made, request.encode())
    return made


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_who_never_reads_is_dropped_and_costs_neither_memory_nor_the_others(
    addresses, monkeypatch
):
    monkeypatch.setattr(socket_protocol, "CLOSE_S_MAX", 1.0)
    async with engine(addresses) as on, served(addresses, monkeypatch) as gateway:
        written = commands.create_workflow(definition=definition(1))
        await on.client.call(written)
        path = f"/ws/workflows/{written.root}"
        never = [await deaf(gateway.url, path) for _ in range(DEAF)]
        listening = gateway.following.hub._subscriptions
        async with gateway.open(path) as reading, AsyncExitStack() as later:

            async def there():
                return len(listening) == DEAF + 1

            await until(there, "the followers")
            others = set(listening)
            late = await later.enter_async_context(gateway.open(path, max_queue=1))

            async def it():
                return listening - others

            [lately] = await until(it, "the one who reads too late")

            async def told() -> tuple[int, str]:
                await asyncio.shield(lately.ended)  # from then on a close frame waits, but not long
                return await closing(late)

            telling = asyncio.create_task(told())
            before, ear = resident(), Ear(reading)
            hearing = asyncio.create_task(ear.hear_until("ExecutionStarted", EVENTS))
            for _ in range(EVENTS):
                await on.client.call(commands.start_execution(written.root, input=INPUT))
            await hearing
            positions = {(e["partition"], e["position"]) for e in ear.events}
            assert len(positions) == len(ear.events), "the one who reads has all of it, once"
            assert gateway.following.hub.dropped > DEAF // 2

            async def only_the_reader():
                return gateway.following.followers == 1

            assert resident() - before < GROWTH_BYTES_MAX
            code, reason = await telling
            assert code == 4408, reason
            await until(only_the_reader, "the drops")
            assert gateway.closed(4408) == DEAF + 1
            assert gateway.following.hub.dropped == DEAF + 1
        for one in never:
            await asyncio.to_thread(drained, one)


def drained(made: sockets.socket) -> None:
    """Read what is left; fails where the connection still stands."""
    made.settimeout(10)
    with made:
        try:
            while made.recv(1 << 20):
                pass
        except ConnectionResetError:
            return


async def test_who_does_not_answer_a_ping_is_gone_and_who_answers_stays(addresses, monkeypatch):
    monkeypatch.setattr(socket_protocol, "CLOSE_S_MAX", 0.2)
    monkeypatch.setitem(server.SOCKETS, "ws_ping_interval", 0.2)
    monkeypatch.setitem(server.SOCKETS, "ws_ping_timeout", 0.5)
    async with engine(addresses), served(addresses, monkeypatch) as gateway:
        path = "/api/v1/ws/events"
        async with gateway.open(path, ping_interval=None) as living:
            dead = await deaf(gateway.url, path)

            async def both():
                return gateway.following.followers == 2

            async def one():
                return gateway.following.followers == 1

            await until(both, "both")
            await until(one, "the end of the dead one")
            await asyncio.to_thread(drained, dead)
            assert (await living.recv()).startswith('{"type":"subscribed"')
            assert gateway.following.followers == 1


async def test_a_quiet_follower_is_told_its_place_now_and_then(addresses, monkeypatch):
    monkeypatch.setattr("processors.following.hub.HEARTBEAT_S", 0.3)
    async with engine(addresses) as on, served(addresses, monkeypatch) as gateway:
        written = commands.create_workflow(definition=definition(1))
        await on.client.call(written)
        async with gateway.open("/api/v1/ws/events?type=Nothing") as socket:
            ear = Ear(socket)
            assert (await ear.hear())["type"] == "subscribed"
            before = dict(ear.at)
            await on.client.call(commands.start_execution(written.root))
            while ear.at == before:
                assert (await ear.hear())["type"] == "heartbeat"
