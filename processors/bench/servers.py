"""Servers to measure on, with nothing of anybody's in them, and what they say of themselves.

Embedded ones in a directory of their own; or given ones, where a database is made for the
measurement and dropped after it, and Redis must be empty. Figures without durability are refused.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
from redis.asyncio import Redis

from migrations.apply import migrate
from processors.cli.exits import Failed
from processors.settings import Addresses

POSTGRES, REDIS = "postgres", "redis"
SHOWN = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
PINNED = {"synchronous_commit": "on"}
"""Of the database that is measured, whatever the server's default; `fsync` is only verified."""
SYNC_RUNS = 50
SYNC_US_MAX = 1_000.0  # a disk that takes longer is what is measured
SYNC_US_MIN = 5.0  # what returns sooner has not been to a disk
TABLES = """
SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables
WHERE schemaname = current_schema() AND tablename NOT IN ('engine', 'migrations')
"""
"""What fills while the engine runs."""


@dataclass(slots=True)
class Place:
    """Where to measure: two servers, and their process ids where they are ours."""

    addresses: Addresses
    pids: dict[str, int | None] = field(default_factory=lambda: {POSTGRES: None, REDIS: None})
    directory: Path | None = None


@contextmanager
def place(database_url: str | None, redis_url: str | None) -> Iterator[Place]:
    """The servers that were given, else embedded ones for the time being."""
    if (database_url is None) != (redis_url is None):
        raise Failed("Give both --database-url and --redis-url, or neither.")
    if database_url is not None and redis_url is not None:
        yield Place(Addresses(database_url, redis_url))
        return
    from streams.embedded import embedded

    directory = Path(tempfile.mkdtemp(prefix="agentcore-bench-"))
    directory.chmod(0o711)  # PostgreSQL's account must be able to enter
    try:
        with embedded(directory) as servers:
            addresses = Addresses(servers.database_url, servers.redis_url)
            pids = {POSTGRES: servers.postgres.pid, REDIS: servers.redis.pid}
            yield Place(addresses, pids, directory)
    finally:
        shutil.rmtree((directory / POSTGRES).resolve(), ignore_errors=True)  # it may lie elsewhere
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def scratch(place: Place, partitions: int) -> AsyncIterator[Addresses]:
    """A migrated database and an empty Redis, both as they were before when this ends."""
    given, name = place.addresses, f"bench_{uuid4().hex}"
    redis = Redis.from_url(given.redis_url)
    try:
        if await redis.dbsize():
            masked = urlsplit(given.redis_url).path or "/0"
            raise Failed(f"Redis' database {masked} is not empty; name another one, such as …/15.")
        async with connected(given.database_url) as connection:
            await connection.execute(f"CREATE DATABASE {name}")
            for setting, value in PINNED.items():
                await connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
        try:
            url = urlsplit(given.database_url)._replace(path=f"/{name}").geturl()
            await migrate(url, partitions)
            await durable(url)
            yield Addresses(url, given.redis_url)
        finally:
            async with Redis.from_url(given.redis_url) as anew:  # the other may be lost
                await anew.flushdb()
            async with connected(given.database_url) as connection:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await redis.aclose()


@asynccontextmanager
async def target(place: Place, partitions: int, *, existing: bool) -> AsyncIterator[Addresses]:
    """A scratch database, or the given one with the workers that serve it."""
    if not existing:
        async with scratch(place, partitions) as addresses:
            yield addresses
        return
    if place.directory is not None:
        raise Failed("Existing workers have servers: give --database-url and --redis-url.")
    yield place.addresses


async def empty(addresses: Addresses) -> None:
    """The state that every run begins with."""
    async with Redis.from_url(addresses.redis_url) as redis:
        await redis.flushdb()
    async with connected(addresses.database_url) as connection:
        await connection.execute(f"TRUNCATE {await connection.fetchval(TABLES)}")
        with suppress(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CHECKPOINT")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection for a few statements."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def machine() -> dict[str, Any]:
    """What runs us."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def durable(database_url: str) -> dict[str, str]:
    """What PostgreSQL says of itself there; raises Failed where a commit may be lost."""
    async with connected(database_url) as connection:
        shown = {name: await connection.fetchval(f"SHOW {name}") for name in SHOWN}
    for name in ("fsync", "synchronous_commit"):
        if shown[name] == "off":
            raise Failed(f"PostgreSQL runs with {name} = off: what it acknowledges may be lost.")
    return shown


async def described(place: Place) -> tuple[dict[str, Any], list[str]]:
    """The machine and its servers, with what to mind; raises Failed where nothing is durable."""
    shown = await durable(place.addresses.database_url)
    async with Redis.from_url(place.addresses.redis_url) as redis:
        version: str = (await redis.info("server"))["redis_version"]
        kept = await redis.config_get("append*")
    said = machine() | {
        "postgres": shown.pop("server_version"),
        **shown,
        "redis": version,
        "appendonly": kept.get("appendonly", "unknown"),
        "appendfsync": kept.get("appendfsync", "unknown"),
        "load_average": round(os.getloadavg()[0], 2),
    }
    warnings: list[str] = []
    if place.directory is not None:
        said["fdatasync_us"] = round(_sync_us(place.directory))
        if said["fdatasync_us"] < SYNC_US_MIN:
            warnings.append(f"{place.directory} is on no disk: nothing here is durable.")
        if said["fdatasync_us"] > SYNC_US_MAX:
            warnings.append("The disk is slow, or busy with other work: so are all commits.")
    if said["load_average"] > said["cores"] / 2:
        warnings.append("The machine has other work: times mean little, CPU by task a bit more.")
    return said, warnings


def _sync_us(directory: Path) -> float:
    """How long the disk takes to say that a small write is safe."""
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNC_RUNS):
            file.write(b"0" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), "")
