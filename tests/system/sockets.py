"""A gateway that listens, in this process, and WebSocket clients of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from processors.api import server
from processors.api.metrics import ApiMetrics
from processors.following.following import Following
from processors.settings import Addresses, Settings
from tests.described import valid
from tests.system.engine import PATIENCE_S, Engine


class Served:
    """A gateway at some port."""

    def __init__(self, url: str, app: Any, stop: asyncio.Event) -> None:
        self.url = url.replace("http://", "ws://")
        self.following: Following = app.state.gateway.following
        self.metrics: ApiMetrics = app.state.metrics
        self.stop = stop

    def open(self, path: str, **options: Any) -> connect:
        """A client's connection; it reads as much as there is."""
        return connect(
            self.url + path, **({"max_size": None, "max_queue": None, "proxy": None} | options)
        )

    def closed(self, code: int) -> int:
        """How many sockets were closed with a code."""
        found = re.search(rf'closed_total{{code="{code}"}} ([0-9]+)', self.metrics.text().decode())
        return int(found[1]) if found else 0

    async def closed_with(self, path: str, **options: Any) -> tuple[int, str]:
        """The code and the reason with which a socket is closed."""
        async with self.open(path, **options) as socket:
            return await closing(socket)


@asynccontextmanager
async def served(addresses: Addresses, monkeypatch: Any, **given: Any) -> AsyncIterator[Served]:
    """A gateway of these servers; `given` are settings."""
    made: list[Any] = []

    def noted(*arguments: Any) -> Any:
        made.append(make_app(*arguments))
        return made[-1]

    make_app = server.make_app
    monkeypatch.setattr(server, "make_app", noted)
    monkeypatch.setattr(server.gc, "set_threshold", lambda *_: None)
    settings = Settings(
        DATABASE_URL=addresses.database_url, REDIS_URL=addresses.redis_url, api_port=0, **given
    )
    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve(settings, addresses, url.set_result, stop))
    try:
        await asyncio.wait({serving, url}, return_when=asyncio.FIRST_COMPLETED)
        yield Served(await url, made[0], stop)
    finally:
        stop.set()
        await serving


async def closing(socket: ClientConnection) -> tuple[int, str]:
    """How the other side closes it; what it says before is passed over."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await socket.recv()
    except ConnectionClosed as closed:
        said = closed.rcvd
        return (said.code, said.reason) if said else (1006, "")


class Ear:
    """What one client hears, and from where it would go on."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.raw: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.at: dict[int, int] = {}

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            said = await self.socket.recv(decode=False)
        message: dict[str, Any] = orjson.loads(said)
        if "specversion" in message:
            self.raw.append(bytes(said))
            self.events.append(message)
            self.at[message["partition"]] = message["position"]
        else:
            valid(message["type"].capitalize(), message)
            self.at |= places(message["position"])
        return message

    async def hear_events(self, count: int) -> None:
        """Listen until so many events were heard."""
        while len(self.events) < count:
            await self.hear()

    async def hear_until(self, kind: str, count: int = 1) -> None:
        """Listen until an event of this type was heard so often."""
        while sum(event["type"] == kind for event in self.events) < count:
            await self.hear()

    @property
    def place(self) -> str:
        """Where it would go on, as a client computes it."""
        return ",".join(f"{p}:{n}" for p, n in self.at.items() if n) or "0"


def places(place: str) -> dict[int, int]:
    """Positions by partition."""
    pairs = (part.split(":") for part in place.split(",") if ":" in part)
    return {int(p): int(n) for p, n in pairs}


async def stored(on: Engine, where: str, *arguments: Any) -> list[bytes]:
    """The log's own bytes of some events, by partition and position."""
    rows = await on.pool.fetch(
        f"SELECT message FROM events WHERE {where} ORDER BY partition, position", *arguments
    )
    return [row[0] if isinstance(row[0], bytes) else row[0].encode() for row in rows]
