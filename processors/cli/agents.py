"""`orchestrator agents` (not listed): simulated agents, as `demo` and `up --agents` run them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from processors.cli import sql
from processors.cli.exits import run

if TYPE_CHECKING:
    from processors.access.own import Shown
    from processors.settings import Addresses
    from streams.logs.postgres import PostgresLog
    from streams.sealing.keyring import Keyring

POLL_S = 1.0  # how long a role waits that shows up for the first time
GRACE_S = 0.3  # nobody misses a simulated task; whoever was told to stop should soon have done so
ROLES_A_HOST = 500  # a host names all its streams in every read


@dataclass(frozen=True)
class Pool:
    """What kind of agents to run; `behaviour` has the fields of `processors.agents.Behaviour`."""

    name: str
    per_role: int
    factor: float
    capacity: int
    lease_s: float
    behaviour: dict[str, float]


def share(what: str) -> Any:
    """An option for a share of the attempts."""
    return typer.Option(min=0.0, max=1.0, help=f"The share of attempts that {what}.")


def agents(
    per_role: int = typer.Option(1, min=1, help="So many for each role."),
    factor: float = typer.Option(0.0, min=0.0, help="Tasks sleep their `duration` times this."),
    roles: Annotated[
        Path | None, typer.Option(help="A JSON list of roles; else every role that shows up.")
    ] = None,
    name: str = typer.Option("simulated", help="The host's name, the same after a restart."),
    capacity: int = typer.Option(100, min=1, help="Tasks at once, of each agent."),
    lease: float = typer.Option(10.0, min=0.3, help="Seconds until a dead host's tasks are taken."),
    seed: int = typer.Option(0, help="The same seed misbehaves with the same attempts."),
    failures: Annotated[float, share("fail")] = 0.0,
    undo_failures: Annotated[float, share("fail to undo a task")] = 0.0,
    slow: Annotated[float, share("take --slow-s longer")] = 0.0,
    slow_s: float = typer.Option(1.0, min=0.0),
    hanging: Annotated[float, share("never end by themselves")] = 0.0,
    duplicates: Annotated[float, share("are answered twice")] = 0.0,
    late: Annotated[float, share("are contradicted --late-s after their answer")] = 0.0,
    late_s: float = typer.Option(1.0, min=0.0),
) -> None:
    """Run simulated agents until told to stop.

    Example:  orchestrator agents --per-role 20 --factor 0.1 --failures 0.05
    """

    shares = {
        "seed": seed,
        "failures": failures,
        "undo_failures": undo_failures,
        "slow": slow,
        "slow_s": slow_s,
        "hanging": hanging,
        "duplicates": duplicates,
        "late": late,
        "late_s": late_s,
    }
    pool = Pool(name, per_role, factor, capacity, lease, shares)
    given = None if roles is None else orjson.loads(roles.read_bytes())

    async def work() -> None:
        from processors.access.own import shown
        from processors.access.principal import Role
        from processors.cli.logs import configure
        from processors.keys import keyring_of
        from processors.running import find
        from processors.settings import read_settings
        from streams.logs.postgres import PostgresLog

        settings = read_settings()
        configure(settings.log_level)
        addresses = find(settings)
        log = PostgresLog(addresses.database_url, 1)
        await log.open()
        try:
            token = shown(settings, roles=[Role.AGENT])
            await _serve(log, addresses, given, pool, keyring_of(settings, log), token)
        finally:
            await log.close()

    run(work, stop_is_success=True)


async def _serve(
    log: PostgresLog,
    addresses: Addresses,
    roles: Sequence[str] | None,
    pool: Pool,
    keys: Keyring | None,
    token: Shown,
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
                host = f"{pool.name}-{next(numbers)}"
                batch = fresh[at : at + ROLES_A_HOST]
                hosts.create_task(
                    _host(addresses.redis_url, batch, pool, host, partitions, keys, token)
                )
            known.update(fresh)
            if roles is not None:
                return  # the group waits for the hosts
            await asyncio.sleep(POLL_S)


async def _host(
    redis_url: str,
    roles: Sequence[str],
    pool: Pool,
    name: str,
    partitions: int,
    keys: Keyring | None,
    token: Shown,
) -> None:
    from processors.agents import AgentHost, Behaviour, register, simulated_agents
    from streams.bus import Bus

    bus = Bus(redis_url)
    agents = simulated_agents(
        roles,
        per_role=pool.per_role,
        factor=pool.factor,
        capacity=pool.capacity,
        behaviour=Behaviour(**pool.behaviour),  # type: ignore[arg-type]
        bus=bus,
        prefix=pool.name,
    )
    host = AgentHost(bus, agents, name=name, lease_s=pool.lease_s, keys=keys, token=token)
    host.start()
    try:
        await register(host.bus, agents, partitions, token)
        await host.ended()
    finally:
        await host.stop(GRACE_S)
        await bus.close()


async def _roles(log: PostgresLog) -> list[str]:
    return [row[0] for row in await log.pool.fetch(sql.ROLES)]
