"""Servers of a test's own that may be harmed, and a load that must come through all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from redis.asyncio import Redis

from migrations.apply import migrate
from processors import commands
from processors.agents import AgentHost
from processors.client import Client, NoAnswer
from processors.settings import Addresses
from streams.bus import BusFull
from streams.embedded import Servers, embedded
from streams.ending import end
from streams.message import Command
from tests.servers import scratch_directory
from tests.system import checks
from tests.system.engine import Process, agents, completed, definition, process, until

ROLES = ("commands", "managers", "projections")
LEASE_S = 2.0
TASKS, TASK_S = 5, 0.05
STARTS_AT_ONCE = 4
ACKNOWLEDGED_MIN = 8  # before a harm, and once more after it
CONVERGENCE_S = 60.0  # after the last harm; a machine that is busy needs some


@asynccontextmanager
async def own_servers() -> AsyncIterator[Servers]:
    """A PostgreSQL and a Redis for one test."""
    with ExitStack() as stack:
        directory = stack.enter_context(scratch_directory())
        servers = await asyncio.to_thread(stack.enter_context, embedded(directory))
        await migrate(servers.database_url)
        yield servers


@dataclass
class Load:
    """Executions that are started one after the other, each until it is acknowledged."""

    client: Client
    host: AgentHost
    worker: Process
    workflow: str
    acknowledged: list[str] = field(default_factory=list)
    unanswered: int = 0
    refused: int = 0
    _starters: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        """Start executions from now on."""
        self._starters = [asyncio.create_task(self._start()) for _ in range(STARTS_AT_ONCE)]

    async def _start(self) -> None:
        while True:
            await self._until_acknowledged(commands.start_execution(self.workflow))

    async def _until_acknowledged(self, command: Command) -> None:
        while True:
            try:
                await self.client.call(command, 5.0)
                self.acknowledged.append(command.root)
                return
            except BusFull:
                self.refused += 1
            except NoAnswer:  # it may have happened: the same command, again
                self.unanswered += 1

    async def progress(self, count: int = ACKNOWLEDGED_MIN) -> None:
        """Wait until so many more were acknowledged."""
        target = len(self.acknowledged) + count

        async def enough() -> bool:
            for starter in self._starters:
                if starter.done():
                    starter.result()  # a client that did not survive
            return len(self.acknowledged) >= target

        await until(enough, f"{count} acknowledgements", CONVERGENCE_S)

    async def finish(self) -> None:
        """Start no more."""
        starters, self._starters = self._starters, []
        for starter in starters:
            await end(starter)

    async def all_is_well(self, servers: Servers) -> dict[str, Any]:
        """Nothing acknowledged is lost, I1–I8, I11, I17; and the worker is the same process."""
        await self.finish()
        pid = self.worker.pid
        await completed(self.client.pool, self.acknowledged, CONVERGENCE_S)
        await quiet(self.client.pool)
        await checks.commits(self.client.pool)
        subjects = checks.by_subject(await checks.history(self.client.pool))
        for subject, events in subjects.items():
            if subject.startswith("execution/"):  # also those that were never acknowledged
                facts = [event for event in events if event["type"] != "CommandRejected"]
                checks.execution(facts, definition(TASKS))
        assert {f"execution/{name}" for name in self.acknowledged} <= subjects.keys()
        redis = Redis.from_url(servers.redis_url)
        try:
            await until(lambda: _mirrored(self.client.pool, redis), "a whole mirror")
        finally:
            await redis.aclose()
        assert self.worker.popen.poll() is None, "the worker has not ended"
        counts = await asyncio.to_thread(self.worker.finish)
        assert self.worker.pid == pid
        return counts


async def quiet(pool: asyncpg.Pool) -> None:
    """Wait until every execution has ended and everything is projected."""

    async def all_ended() -> bool:
        return bool(
            await pool.fetchval(
                "SELECT (SELECT count(*) FROM events WHERE type = 'ExecutionStarted')"
                " = (SELECT count(*) FROM executions WHERE status = 'completed')"
            )
        )

    await until(all_ended, "quiet", CONVERGENCE_S)


async def _mirrored(pool: asyncpg.Pool, redis: Redis) -> int:
    try:
        return await checks.mirror(pool, redis)
    except (AssertionError, IndexError):
        return 0


@asynccontextmanager
async def under_load(servers: Servers, roles: Sequence[str] = ROLES) -> AsyncIterator[Load]:
    """A worker in a process of its own, agents and a client here, and work that has begun."""
    addresses = Addresses(servers.database_url, servers.redis_url)
    with process(addresses, roles=roles, lease_s=LEASE_S) as worker:
        await asyncio.to_thread(worker.ready)
        async with (
            Client(addresses, actor="test") as client,
            agents(addresses, ["worker"], factor=TASK_S, capacity=50) as host,
        ):
            created = commands.create_workflow(definition=definition(TASKS))
            await client.call(created)
            load = Load(client, host, worker, created.root)
            load.begin()
            try:
                await load.progress()
                yield load
            finally:
                await load.finish()
