"""Reads on behalf of a principal, if need be only once the read models have come far enough.

A write answers with its position (`partition:position`); a read that names it in `min_position`
sees that write.
"""

from __future__ import annotations

from typing import Annotated, Any

import asyncpg
from fastapi import Depends, Query

from processors.api.gateway import At, Gateway
from processors.api.principal import Principal, Who

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

    def __init__(self, gateway: Gateway, who: Principal) -> None:
        self.gateway = gateway
        self.who = who

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


async def reader(gateway: At, who: Who, min_position: MinPosition = None) -> Reader:
    """A reader, once the read models are where they are wanted."""
    if min_position is not None:
        partition, _, position = min_position.partition(":")
        await gateway.reached.wait(int(partition), int(position))
    return Reader(gateway, who)


Reading = Annotated[Reader, Depends(reader)]
