"""A TCP proxy between the engine and one of its servers, which breaks what passes on demand."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Literal

CHUNK_BYTES = 64 * 1024
LOOPBACK = "127.0.0.1"

Way = Literal["up", "down"]
"""Up is towards the server, down is towards the engine."""


@dataclass(eq=False)
class Link:
    """One connection that passes: both its ends."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    swallow: bool = False
    """The next reply is not passed on."""

    def abort(self) -> None:
        """End it at once, as a cut cable with a reset would."""
        for end in (self.client, self.server):
            end.transport.abort()


@dataclass
class Proxy:
    """Listens on the loopback address in front of one server; all its harm can be undone."""

    target: int
    port: int = 0
    delay_s: float = 0.0
    refusing: bool = False
    dropped: int = 0
    """How many single replies were lost."""
    cuts: int = 0
    links: set[Link] = field(default_factory=set)
    _open: dict[Way, asyncio.Event] = field(default_factory=dict)
    _drop: bytes | None = None
    _server: asyncio.Server | None = None
    _pumps: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Proxy:
        for way in ("up", "down"):
            self._open[way] = asyncio.Event()
            self._open[way].set()
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> int:
        """Break every connection; new ones are welcome. Returns how many there were."""
        broken = len(self.links)
        for link in list(self.links):
            link.abort()
        self.cuts += broken
        return broken

    def freeze(self, *ways: Way) -> None:
        """Pass nothing on in these directions (both, if none is named); nothing is lost."""
        for way in ways or ("up", "down"):
            self._open[way].clear()

    def drop_reply(self, to: bytes = b"") -> None:
        """Lose the reply to the next request with these bytes in it, and its connection with it."""
        self._drop = to

    @property
    def dropping(self) -> bool:
        """Whether the reply that is to be lost has not come yet."""
        return self._drop is not None

    def heal(self) -> None:
        """Pass everything on again."""
        for gate in self._open.values():
            gate.set()
        self.delay_s, self.refusing, self._drop = 0.0, False, None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            upstream, server = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server)
        self.links.add(link)
        pumps = [
            asyncio.create_task(self._pump(link, "up", reader, server)),
            asyncio.create_task(self._pump(link, "down", upstream, writer)),
        ]
        for pump in pumps:
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self,
        link: Link,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._open[way].wait()
                if way == "up" and self._drop is not None and self._drop in data:
                    self._drop, link.swallow = None, True
                if way == "down" and link.swallow:
                    self.dropped += 1
                    break
                writer.write(data)
                await writer.drain()
        link.abort()
        self.links.discard(link)
