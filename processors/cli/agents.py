"""`orchestrator agents` (not listed): simulated agents, as `demo` and `up --agents` run them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from processors.cli import sql
from processors.cli.exits import run

if TYPE_CHECKING:
    from processors.settings import Addresses
    from streams.logs.postgres import PostgresLog

POLL_S = 1.0  # how long a role waits that shows up for the first time
GRACE_S = 0.3  # nobody misses a simulated task; whoever was told to stop should soon have done so
ROLES_A_HOST = 500  # a host names all its streams in every read


def agents(
    per_role: int = typer.Option(1, min=1, help="So many for each role."),
    factor: float = typer.Option(0.0, min=0.0, help="Tasks sleep their `duration` times this."),
    roles: Annotated[
        Path | None, typer.Option(help="A JSON list of roles; else every role that shows up.")
    ] = None,
    name: str = typer.Option("simulated", help="The host's name, the same after a restart."),
) -> None:
    """Run simulated agents until told to stop.

    Example:  orchestrator agents --per-role 20 --factor 0.1
    """

    given = None if roles is None else orjson.loads(roles.read_bytes())

    async def work() -> None:
        from processors.cli.logs import configure
        from processors.running import find
        from processors.settings import read_settings
        from streams.logs.postgres import PostgresLog

        settings = read_settings()
        configure(settings.log_level)
        addresses = find(settings)
        log = PostgresLog(addresses.database_url, 1)
        await log.open()
        try:
            await _serve(log, addresses, given, (per_role, factor), name)
        finally:
            await log.close()

    run(work, stop_is_success=True)


async def _serve(
    log: PostgresLog,
    addresses: Addresses,
    roles: Sequence[str] | None,
    pool: tuple[int, float],
    name: str,
) -> None:
    """A host for each batch of new roles, for as long as all hosts run."""
    partitions = await log.partitions()
    known: set[str] = set()
    numbers = count(1)
    async with asyncio.TaskGroup() as hosts:
        while True:
            wanted = roles if roles is not None else await _roles(log)
            fresh = sorted(set(wanted) - known)
            for at in range(0, len(fresh), ROLES_A_HOST):
                host = f"{name}-{next(numbers)}"
                batch = fresh[at : at + ROLES_A_HOST]
                hosts.create_task(_host(addresses.redis_url, batch, pool, host, partitions))
            known.update(fresh)
            if roles is not None:
                return  # the group waits for the hosts
            await asyncio.sleep(POLL_S)


async def _host(
    redis_url: str, roles: Sequence[str], pool: tuple[int, float], name: str, partitions: int
) -> None:
    from processors.agents import AgentHost, register, simulated_agents

    per_role, factor = pool
    agents = simulated_agents(roles, per_role=per_role, factor=factor)
    host = AgentHost(redis_url, agents, name=name)
    host.start()
    try:
        await register(host.bus, agents, partitions)
        await host.ended()
    finally:
        await host.stop(GRACE_S)


async def _roles(log: PostgresLog) -> list[str]:
    return [row[0] for row in await log.pool.fetch(sql.ROLES)]
