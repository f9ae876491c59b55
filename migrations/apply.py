"""Applies the SQL files that a database has not seen, one transaction each, under a lock."""

from __future__ import annotations

from importlib.resources import files

import asyncpg

LOCK = 0x4147_434F  # "AGCO": one migrator at a time, whoever starts it
PARTITIONS_DEFAULT = 16


async def migrate(database_url: str, partitions: int = PARTITIONS_DEFAULT) -> list[str]:
    """Bring the schema up to date and return the names of the steps that were applied.

    `partitions` is written when the database is created and never changes afterwards.
    """
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row["name"] for row in await connection.fetch("SELECT name FROM migrations")}
        steps = sorted(f.name for f in files("migrations").iterdir() if f.name.endswith(".sql"))
        applied = []
        for name in steps:
            if name in done:
                continue
            async with connection.transaction():
                await connection.execute(files("migrations").joinpath(name).read_text())
                await connection.execute("INSERT INTO migrations (name) VALUES ($1)", name)
            applied.append(name)
        await connection.execute(
            "INSERT INTO engine (partitions) VALUES ($1) ON CONFLICT DO NOTHING", partitions
        )
        return applied
    finally:
        await connection.close()
