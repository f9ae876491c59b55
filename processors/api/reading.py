"""Reads on behalf of a principal, if need be only once the read models have come far enough.

A write answers with its position (`partition:position`); a read that names it in `min_position`
sees that write.
"""

from __future__ import annotations

from typing import Annotated, Any

import asyncpg
from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from processors.access.roles import Read
from processors.api.gateway import At, Gateway
from processors.api.principal import Principal, Who
from processors.reading import Reader as Payloads

MinPosition = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,4}:\d{1,18}$",
        description="Answer once the read models have reached this position (`X-Position` of a"
        " write).",
    ),
]


class Reader:
    """The read models, as somebody may see them."""

    def __init__(self, gateway: Gateway, who: Principal, origin: str, via: str) -> None:
        """`origin` is the address that asks, `via` the route: for the audit trail."""
        self.gateway = gateway
        self.who = who
        self._origin = origin
        self._via = via

    @property
    def tenant(self) -> str:
        """Whose rows are seen."""
        return self.who.tenant

    async def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a statement whose $1 is the tenant."""
        return await self.gateway.rows(self.who, statement, self.tenant, *arguments)

    async def row(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of a statement whose $1 is the tenant."""
        return await self.gateway.row(self.who, statement, self.tenant, *arguments)

    async def payloads(self, subject: str) -> Payloads | None:
        """What opens the payloads of an aggregate; None where sealing is off, or who asks may not.

        Both a look and a refusal are in the audit trail.
        """
        gateway, who = self.gateway, self.who
        if gateway.client.keys is None:
            return None
        see = Payloads(gateway.unbound, gateway.client.keys, who.actor, self._origin, self._via)
        if not who.may(Read.PAYLOADS):
            await see.refused(who.tenant, subject, "FORBIDDEN")
            return None
        return see


async def reader(
    connection: HTTPConnection, gateway: At, who: Who, min_position: MinPosition = None
) -> Reader:
    """A reader, once the read models are where they are wanted."""
    if min_position is not None:
        partition, _, position = min_position.partition(":")
        await gateway.reached.wait(int(partition), int(position))
    origin = connection.client.host if connection.client else "unknown"
    via = f"{connection.scope.get('method', 'WS')} {connection.scope['route'].path}"
    return Reader(gateway, who, origin, via)


Reading = Annotated[Reader, Depends(reader)]
