"""Applies the SQL files that a database has not seen, one transaction each, under a lock."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import asyncpg

LOCK = 0x4147_434F  # "AGCO": one migrator at a time, whoever starts it
PARTITIONS_DEFAULT = 16


NOT_ISOLATED = (
    "Row-level security is not in force: the roles agentcore_worker, agentcore_api and"
    " agentcore_reader are missing, and this login may not create them. Create them (NOLOGIN),"
    " grant them to the engine's login, and migrate again."
)


async def migrate(
    database_url: str,
    partitions: int = PARTITIONS_DEFAULT,
    warning: Callable[[str], None] = lambda sentence: None,
) -> list[str]:
    """Bring the schema up to date and return the names of the steps that were applied.

    `warning` hears what could not be done: this login may not be allowed to create roles.
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
        if not await connection.fetchval("SELECT secure_tables()"):
            warning(NOT_ISOLATED)
        return applied
    finally:
        await connection.close()
