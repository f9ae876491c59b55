"""The HTTP interface in tests: the app with its lifespan beside a running engine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from processors.api.app import make_app
from processors.settings import Addresses, Settings
from tests.servers import Endpoints, empty_redis, fresh_database
from tests.system.engine import ROOT, Engine, engine

START_S_MAX = 20.0


@asynccontextmanager
async def api(addresses: Addresses, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app of its own; `given` are settings."""
    settings = Settings(DATABASE_URL=addresses.database_url, REDIS_URL=addresses.redis_url, **given)
    app = make_app(settings, addresses)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", timeout=60) as client,
    ):
        yield client


@asynccontextmanager
async def both(servers: Endpoints, **given: Any) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """An engine on a database of its own, and a client of its HTTP interface."""
    async with (
        fresh_database(servers.database_url) as database,
        empty_redis(servers.redis_url) as redis_url,
    ):
        addresses = Addresses(database, redis_url)
        async with engine(addresses) as on, api(addresses, **given) as http:
            yield on, http


@asynccontextmanager
async def gateway(addresses: Addresses) -> AsyncIterator[str]:
    """The URL of `orchestrator api` as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processors", "api", "--port", "0"),
        cwd=ROOT,
        env=os.environ | addresses.environment() | {"AGENTCORE_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            line = await process.stdout.readline()
        yield line.decode().rsplit(maxsplit=1)[1]
    finally:
        process.terminate()
        assert await process.wait() == 0


def at(written: httpx.Response) -> dict[str, str]:
    """The parameter with which a read sees this write."""
    return {"min_position": written.headers["X-Position"]}
