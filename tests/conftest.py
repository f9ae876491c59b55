"""Fixtures for tests that need servers: a migrated database each, and a Redis database each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.servers import Endpoints, servers_for_tests

# Redis has 16 logical databases; 0 is left alone, since a given server may be somebody's own.
_redis_databases = itertools.cycle(range(1, 16))


@pytest.fixture(scope="session")
def servers() -> Iterator[Endpoints]:
    """Both servers, for the whole run."""
    with servers_for_tests() as endpoints:
        yield endpoints


@pytest.fixture
async def database(servers: Endpoints) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database, dropped afterwards with whoever is still connected."""
    from migrations.apply import migrate

    name = f"test_{uuid4().hex}"
    await _execute(servers.database_url, f"CREATE DATABASE {name}")
    try:
        url = urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
        await migrate(url)
        yield url
    finally:
        await _execute(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def redis_url(servers: Endpoints) -> str:
    """The URL of an empty logical database of Redis."""
    number = next(_redis_databases)
    url = urlsplit(servers.redis_url)._replace(path=f"/{number}").geturl()
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
