"""Fixtures for tests that need servers: a migrated database each, and a Redis database each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from streams.bus import Bus
from tests.servers import Endpoints, empty_redis, fresh_database, servers_for_tests


@pytest.fixture(scope="session")
def servers() -> Iterator[Endpoints]:
    """Both servers, for the whole run."""
    with servers_for_tests() as endpoints:
        yield endpoints


@pytest.fixture
async def database(servers: Endpoints) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database, dropped afterwards with whoever is still connected."""
    async with fresh_database(servers.database_url) as url:
        yield url


@pytest.fixture
async def redis_url(servers: Endpoints) -> AsyncIterator[str]:
    """The URL of an empty logical database of Redis."""
    async with empty_redis(servers.redis_url) as url:
        yield url


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    """Connections to that database of Redis."""
    made = Bus(redis_url)
    yield made
    await made.close()
