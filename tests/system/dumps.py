"""Everything that PostgreSQL and Redis hold, as bytes, to look for what must not be there."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from tests.system.engine import until

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"


async def tables(pool: asyncpg.Pool) -> dict[str, bytes]:
    """Every table, row by row as text; bytes in it are in hexadecimal."""
    found = {}
    for (name,) in await pool.fetch(TABLES):
        rows = await pool.fetch(f"SELECT t::text FROM {name} AS t")
        found[name] = "\n".join(row[0] for row in rows).encode()
    return found


async def keys(redis: Redis) -> dict[str, bytes]:
    """Every key of a Redis database, as its own command shows it."""
    read: dict[bytes, Any] = {
        b"stream": lambda key: redis.xrange(key),
        b"string": lambda key: redis.get(key),
        b"hash": lambda key: redis.hgetall(key),
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": lambda key: redis.smembers(key),
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    found = {}
    async for key in redis.scan_iter():
        kind = await redis.type(key)
        found[key.decode()] = repr(await read[kind](key)).encode()
    return found


async def redis_files(redis: Redis) -> dict[str, bytes]:
    """The files that Redis keeps, written anew first; none where they are on another machine."""
    home = Path((await redis.config_get("dir"))["dir"])
    if not home.is_dir():
        return {}
    await redis.config_set("rdbcompression", "no")  # compressed, a secret would not be found
    await redis.bgrewriteaof()

    async def written() -> bool:
        now = await redis.info("persistence")
        return not (now["aof_rewrite_in_progress"] or now["aof_rewrite_scheduled"])

    await until(written, "the new file")
    await redis.config_set("rdbcompression", "yes")
    return {str(p): p.read_bytes() for p in _files(home) if p.suffix != ".conf"}


async def database_files(pool: asyncpg.Pool, since: float) -> dict[str, bytes]:
    """PostgreSQL's files that were written since a time, the write-ahead log too; none where they
    are not on this machine.
    """
    await pool.execute("CHECKPOINT")
    home = Path(await pool.fetchval("SHOW data_directory"))
    if not home.is_dir():
        return {}
    return {
        str(p): p.read_bytes()
        for folder in ("base", "pg_wal")
        for p in _files(home / folder)
        if p.stat().st_mtime >= since
    }


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def where(secrets: Iterable[str], dump: dict[str, bytes]) -> dict[str, list[str]]:
    """Where each secret stands: as it is, in hexadecimal, or in base64."""
    return {
        secret: [name for name, content in dump.items() if any(f in content for f in forms)]
        for secret in secrets
        if (forms := _forms(secret))
    }


def _forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    shifted = [b64encode(b"x" * n + raw)[4:-4] for n in range(3)]
    return [raw, raw.hex().encode(), *shifted]
