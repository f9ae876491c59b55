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

from processors.api.principal import Principal, seen_tenant
from processors.api.reached import Reached
from processors.api.trouble import AWAY, busy, unavailable
from processors.client import Client
from processors.following.following import Following
from processors.settings import Addresses, BadSettings, Settings
from streams.bus import Bus
from streams.logs.postgres import PostgresLog

READ_S_MAX = 5.0  # of one read, with its waiting for a connection
LONG_READ_S_MAX = 20.0  # of a history
READS_MAX = 1_000  # under way and waiting for a connection; more are told to come back
WAITING_MAX = 1_000  # commands whose outcomes are waited for; each holds its body meanwhile


UNBOUND = 4  # connections for what is not bound to a tenant


class Gateway:
    """What all requests of this process share; `async with Gateway(settings, addresses)`."""

    def __init__(self, settings: Settings, addresses: Addresses) -> None:
        self.settings = settings
        self.client = Client(addresses, "http", settings)
        url, bound = addresses.database_url, settings.auth != "none"
        self.log = PostgresLog(
            url,
            settings.api_connections,
            role="agentcore_api" if bound else None,
            tenant=seen_tenant.get if bound else None,
        )
        """Reads for whoever asks; where there are tokens, the database binds it to his tenant."""
        self.unbound = PostgresLog(url, UNBOUND) if bound else self.log
        """Reads what is nobody's, or is handed out by tenant: positions, and what followers get."""
        self.following = Following(self.unbound, self.client.bus, settings.api_sockets)
        self.partitions = 0
        self.reached = Reached(self.unbound)
        self.in_flight: set[str] = set()
        self.reads = 0

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        try:
            await self.log.open()
            await self.unbound.open()
            if self.settings.auth != "none":
                await _make_sure_of_bounds(self.log)
            self.partitions = self.following.partitions = await self.unbound.partitions()
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
        await self.unbound.close()

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


async def _make_sure_of_bounds(log: PostgresLog) -> None:
    """Raise BadSettings where nothing but our own statements would keep tenants apart."""
    if not await log.pool.fetchval("SELECT row_security_active('events')"):
        raise BadSettings(
            "AGENTCORE_AUTH=token: this database does not bind the gateway to one tenant."
            " `orchestrator migrate` says what is missing."
        )


async def gateway(connection: HTTPConnection) -> Gateway:
    """The gateway that a request or a WebSocket came to."""
    found: Gateway = connection.app.state.gateway
    return found


At = Annotated[Gateway, Depends(gateway)]
