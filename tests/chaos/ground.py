"""The ground of a chaos run: real servers that may be harmed, and a proxy in front of each.

Workers, agents and clients come through the proxies; whoever harms or checks goes straight.
Everything listens on the loopback address and was started here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from processors.settings import Addresses
from streams.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.servers import fresh_database, scratch_directory

POSTGRES_SETTINGS = {"wal_level": "replica", "max_wal_senders": "2"}
"""So that a commit can be made to wait for a standby, which is what leaves it unknown."""


class Postgres(EmbeddedPostgres):
    """The embedded one, which can also wait for a standby that never comes."""

    def _command(self) -> list[str | Path]:
        more = [part for pair in POSTGRES_SETTINGS.items() for part in ("-c", "=".join(pair))]
        return [*super()._command(), *more]


@dataclass
class Servers:
    """Both servers; their ports and passwords survive everything that is done to them."""

    postgres: Postgres
    redis: EmbeddedRedis

    def restart_postgres(self, *, kill: bool) -> None:
        """A fast shutdown, or the end of every process at once; then recovery."""
        if kill:
            self.postgres.kill()
        self.postgres.stop()
        self.postgres.start()

    def restart_redis(self, *, lose_data: bool) -> None:
        """A crash of the process, with its file or without."""
        self.redis.kill()
        self.redis.stop()
        if lose_data:
            for file in self.redis.home.glob("appendonly*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        self.redis.start()

    @contextmanager
    def redis_stopped(self) -> Iterator[None]:
        """Not dead, only silent: as while it forks, or swaps."""
        pid = self.redis.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def servers() -> Iterator[Servers]:
    """Both servers on a directory of their own."""
    with scratch_directory() as directory:
        made = Servers(Postgres(directory), EmbeddedRedis(directory))
        try:
            made.redis.launch()
            made.postgres.start()
            made.redis.await_ready()
            yield made
        finally:
            try:
                made.redis.stop()
            finally:
                made.postgres.stop()


@dataclass
class Ground:
    """One database and one empty Redis, straight and through the proxies."""

    servers: Servers
    database_url: str
    redis_proxy: Proxy
    postgres_proxy: Proxy
    redis: Redis
    """Straight to the server, for whoever harms and checks."""

    @property
    def addresses(self) -> Addresses:
        """Through the proxies."""
        return Addresses(
            _through(self.database_url, self.postgres_proxy.port),
            _through(self.servers.redis.url, self.redis_proxy.port),
        )

    @property
    def straight(self) -> Addresses:
        """Past the proxies, for whoever is not cut off by them."""
        return Addresses(self.database_url, self.servers.redis.url)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of one's own, straight."""
        connection = await asyncpg.connect(self.database_url, timeout=30)
        try:
            yield connection
        finally:
            await connection.close()

    def heal(self) -> None:
        """Let everything through."""
        self.redis_proxy.heal()
        self.postgres_proxy.heal()


@asynccontextmanager
async def ground(on: Servers) -> AsyncIterator[Ground]:
    """A fresh database and an empty Redis; what a test has left broken is mended first."""
    for server in (on.postgres, on.redis):
        if server.pid is None:
            await asyncio.to_thread(server.start)
    # Whoever harms and checks may ask twice: the server was restarted meanwhile.
    redis = Redis.from_url(on.redis.url, retry=Retry(ConstantBackoff(0.1), 20))
    await redis.config_set("maxmemory", 0)
    await redis.flushall()
    async with (
        fresh_database(on.postgres.url) as database_url,
        Proxy(on.redis.port) as redis_proxy,
        Proxy(on.postgres.port) as postgres_proxy,
    ):
        try:
            yield Ground(on, database_url, redis_proxy, postgres_proxy, redis)
        finally:
            await redis.aclose()
            if on.postgres.pid is None:
                await asyncio.to_thread(on.postgres.start)


def _through(url: str, port: int) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{host}:{port}"))
