"""Reaching the engine: the servers that were given, or those of a running `orchestrator up`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processors.client import Client
    from processors.reading import Reader
    from streams.bus import Bus
    from streams.logs.postgres import PostgresLog

READERS = 2  # connections of a command that only reads


@asynccontextmanager
async def publishing() -> AsyncIterator[Client]:
    """A client that can publish commands and read the log."""
    from processors.cli.logs import configure_quiet
    from processors.client import Client
    from processors.reading import this_host
    from processors.running import find
    from processors.settings import read_settings

    settings = read_settings()
    configure_quiet(settings.log_level)
    async with Client(find(settings), settings=settings) as client:
        client.origin = this_host()
        yield client


@asynccontextmanager
async def reading() -> AsyncIterator[PostgresLog]:
    """The log and the read models beside it; Redis is not needed."""
    from processors.cli.logs import configure_quiet
    from processors.running import find
    from processors.settings import read_settings
    from streams.logs.postgres import PostgresLog

    settings = read_settings()
    configure_quiet(settings.log_level)
    log = PostgresLog(find(settings).database_url, READERS)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


def reader(log: PostgresLog, command: str) -> Reader:
    """Who reads payloads with this command: they are opened if we have keys, and that is noted."""
    from processors.keys import keyring_of
    from processors.reading import Reader, this_host, this_user
    from processors.settings import read_settings

    keys = keyring_of(read_settings(), log)
    return Reader(log, keys, this_user(), this_host(), f"orchestrator {command}")


@asynccontextmanager
async def reading_both() -> AsyncIterator[tuple[PostgresLog, Bus]]:
    """The log, and Redis for those who say what they miss when it is away."""
    from processors.running import find
    from processors.settings import read_settings
    from streams.bus import Bus

    bus = Bus(find(read_settings()).redis_url)
    try:
        async with reading() as log:
            yield log, bus
    finally:
        await bus.close()
