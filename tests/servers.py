"""The PostgreSQL and Redis that tests run against: given, in containers, or embedded."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
from redis.asyncio import Redis

from streams.embedded import embedded

DOCKER_S_MAX = 2.0  # an engine that is there answers at once
POSTGRES_IMAGE = "postgres:17"
REDIS_IMAGE = "redis:7"

# Redis has 16 logical databases; 0 is left alone, since a given server may be somebody's own. Each
# has one user at a time, however long: an engine of one test would take the commands of another.
_redis_databases = deque(range(1, 16))


@dataclass(frozen=True)
class Endpoints:
    """Where the two servers answer."""

    database_url: str
    redis_url: str


@contextmanager
def servers_for_tests() -> Iterator[Endpoints]:
    """The servers named in the environment, else containers, else embedded ones."""
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    if database_url and redis_url:
        yield Endpoints(database_url, redis_url)
    elif docker_answers():
        with _containers() as endpoints:
            yield endpoints
    else:
        with scratch_directory() as data_dir, embedded(data_dir) as servers:
            yield Endpoints(servers.database_url, servers.redis_url)


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a migrated database, dropped afterwards with whoever is still connected."""
    from migrations.apply import migrate

    name = f"test_{uuid4().hex}"
    await _execute(server_url, f"CREATE DATABASE {name}")
    try:
        url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
        await migrate(url)
        yield url
    finally:
        await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def empty_redis(server_url: str) -> AsyncIterator[str]:
    """The URL of an empty logical database that nobody else has for so long."""
    number = _redis_databases.popleft()
    try:
        url = urlsplit(server_url)._replace(path=f"/{number}").geturl()
        async with Redis.from_url(url) as client:
            await client.flushdb()
        yield url
    finally:
        _redis_databases.append(number)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def scratch_directory(mode: int = 0o711) -> Iterator[Path]:
    """A data directory for embedded servers, open to PostgreSQL's account unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="agentcore-test-"))
    path.chmod(mode)
    try:
        yield path
    finally:
        shutil.rmtree((path / "postgres").resolve(), ignore_errors=True)  # it may lie elsewhere
        shutil.rmtree(path, ignore_errors=True)


def docker_answers() -> bool:
    """Whether a Docker engine answers a ping."""
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        if address.scheme == "unix":
            engine = socket.socket(socket.AF_UNIX)
            target: str | tuple[str, int] = address.path
        else:
            engine = socket.socket()
            target = (address.hostname or "localhost", address.port or 2375)
        with engine:
            engine.settimeout(DOCKER_S_MAX)
            engine.connect(target)
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in engine.recv(64)
    except OSError:
        return False


@contextmanager
def _containers() -> Iterator[Endpoints]:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    with ExitStack() as stack:
        postgres = PostgresContainer(POSTGRES_IMAGE, driver=None)
        stack.enter_context(postgres.with_command("postgres -c max_connections=200"))
        redis = stack.enter_context(RedisContainer(REDIS_IMAGE))
        host, port = redis.get_container_host_ip(), redis.get_exposed_port(redis.port)
        yield Endpoints(postgres.get_connection_url(), f"redis://{host}:{port}/0")
