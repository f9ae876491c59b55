"""Reaching the engine: the servers that were given, or those of a running `orchestrator up`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processors.client import Client
    from streams.logs.postgres import PostgresLog

READERS = 2  # connections of a command that only reads


@asynccontextmanager
async def publishing() -> AsyncIterator[Client]:
    """A client that can publish commands and read the log."""
    from processors.client import Client
    from processors.running import find
    from processors.settings import read_settings

    async with Client(find(read_settings())) as client:
        yield client


@asynccontextmanager
async def reading() -> AsyncIterator[PostgresLog]:
    """The log and the read models beside it; Redis is not needed."""
    from processors.running import find
    from processors.settings import read_settings
    from streams.logs.postgres import PostgresLog

    log = PostgresLog(find(read_settings()).database_url, READERS)
    await log.open()
    try:
        yield log
    finally:
        await log.close()
