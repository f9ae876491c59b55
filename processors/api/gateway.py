"""One gateway process: its connections, its bounds, and what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, Self

import asyncpg
from fastapi import Depends
from starlette.requests import HTTPConnection

from processors.api.principal import Principal
from processors.api.reached import Reached
from processors.api.trouble import AWAY, busy, unavailable
from processors.client import Client
from processors.following.following import Following
from processors.settings import Addresses, Settings
from streams.bus import Bus
from streams.logs.postgres import PostgresLog

READ_S_MAX = 5.0  # of one read, with its waiting for a connection
LONG_READ_S_MAX = 20.0  # of a history
READS_MAX = 1_000  # under way and waiting for a connection; more are told to come back
WAITING_MAX = 1_000  # commands whose outcomes are waited for; each holds its body meanwhile


class Gateway:
    """What all requests of this process share; `async with Gateway(settings, addresses)`."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        self.settings = settings
        self.client = Client(addresses, "http", settings)
        self.log = PostgresLog(addresses.database_url, settings.api_connections)
        self.following = Following(self.log, self.client.bus, settings.api_sockets)
        self.partitions = 0
        self.reached = Reached(self.log)
        self.in_flight: set[str] = set()
        self.reads = 0

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        try:
            await self.log.open()
            self.partitions = self.following.partitions = await self.log.partitions()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.following.close()
        await self.reached.close()
        await self.client.__aexit__(None, None, None)
        await self.log.close()

    @property
    def bus(self) -> Bus:
        """Connections to Redis."""
        return self.client.bus

    @asynccontextmanager
    async def reading(self, who: Principal) -> AsyncIterator[Any]:
        """A connection to the read models on behalf of somebody, for one bounded read.

        Every statement names the principal's tenant. Raises Problem where there is no connection.
        """
        if self.reads >= READS_MAX:
            raise busy("More reads wait for a connection than may")
        self.reads += 1
        try:
            async with asyncio.timeout(READ_S_MAX), self.log.pool.acquire() as connection:
                yield connection
        except AWAY as error:
            raise unavailable("PostgreSQL") from error
        finally:
            self.reads -= 1

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """For longer reads, which bring their connections themselves."""
        try:
            async with asyncio.timeout(LONG_READ_S_MAX):
                yield
        except AWAY as error:
            raise unavailable("PostgreSQL") from error

    async def rows(self, who: Principal, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        async with self.reading(who) as connection:
            return list(await connection.fetch(statement, *arguments))

    async def row(self, who: Principal, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of one statement."""
        async with self.reading(who) as connection:
            found: asyncpg.Record | None = await connection.fetchrow(statement, *arguments)
            return found


async def gateway(connection: HTTPConnection) -> Gateway:
    """The gateway that a request or a WebSocket came to."""
    found: Gateway = connection.app.state.gateway
    return found


At = Annotated[Gateway, Depends(gateway)]
