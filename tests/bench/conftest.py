"""One engine as measurements start it, for all tests that measure from the outside."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from processors.bench import servers as servers_
from processors.bench.deployed import Deployed, How, deployed
from processors.settings import Addresses
from tests.servers import Endpoints, empty_redis

PARTITIONS = 4


@pytest.fixture(scope="package")
async def place(servers: Endpoints) -> AsyncIterator[servers_.Place]:
    """Given servers, as `--database-url` and `--redis-url` name them."""
    async with empty_redis(servers.redis_url) as redis_url:
        yield servers_.Place(Addresses(servers.database_url, redis_url))


@pytest.fixture(scope="package")
async def engine(place: servers_.Place) -> AsyncIterator[Deployed]:
    """Processes as a measurement starts them, for all tests here."""
    async with (
        servers_.target(place, PARTITIONS, existing=False) as addresses,
        deployed(addresses, How(agents=2, capacity=1)) as made,
    ):
        yield made
