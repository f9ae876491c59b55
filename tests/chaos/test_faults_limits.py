"""What there are too many of, or too few: a herd of agents that comes back, no descriptors left."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from processors import commands
from processors.agents import Agent, AgentHost
from processors.client import Client
from tests.chaos import checker
from tests.chaos.checker_executions import violations
from tests.chaos.fleet import Child, Fleet, fleet
from tests.chaos.ground import Ground, Servers, ground
from tests.chaos.shapes import document, task
from tests.chaos.test_crash_points import wait

HOSTS, AGENTS = 100, 100
RUNS = 30
ENDED = "SELECT count(*) FROM events WHERE type = 'ExecutionCompleted'"


@pytest.fixture
async def on(harmed: Servers) -> AsyncIterator[Ground]:
    async with ground(harmed) as made:
        yield made


@pytest.fixture
async def those(on: Ground) -> AsyncIterator[Fleet]:
    async with fleet(on) as made:
        yield made


def intents(count: int, prefix: str) -> list:
    return [commands.register_agent(f"{prefix}{n}", name="a", roles=["r"]) for n in range(count)]


async def whole(on: Ground, events: int) -> None:
    async def well() -> bool:
        async with on.database() as database:
            there = await database.fetchval("SELECT count(*) FROM events")
            return there == events and not violations(await checker.read(database, on.redis))

    await wait(well, f"{events} events and a whole log")


def said(worker: Child, word: str) -> bool:
    """Whether its log has this word."""
    return word in (worker.directory / "diary").read_text(errors="replace")


@contextmanager
def no_descriptors(child: Child) -> Iterator[None]:
    """The child may open nothing more."""
    before = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, before)


async def test_without_file_descriptors_work_waits_and_goes_on(on: Ground, those: Fleet) -> None:
    """F51, I10, I15: every connection breaks, and no socket can be opened for a while."""
    worker = await those.worker()
    async with Client(on.straight) as client:
        await asyncio.gather(*map(client.call, intents(16, "a")))
        with no_descriptors(worker):
            on.postgres_proxy.cut()
            on.redis_proxy.cut()
            calling = asyncio.gather(*map(client.call, intents(16, "b")))
            await wait(lambda: said(worker, "Too many open files"), "a typed error")
        await calling
    assert worker.alive
    await whole(on, 32)


async def test_ten_thousand_agents_that_come_back_at_once_disturb_nobody(
    on: Ground, those: Fleet
) -> None:
    """F50, I15, I16: all their connections break in one moment; work goes on, and none is left."""
    await those.worker()
    flow = document("chain", [task(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(3)])
    creating = commands.create_workflow(definition=flow)
    async with AsyncExitStack() as stack:
        for host in range(HOSTS):
            agents = [
                Agent(f"a{host}-{n}", ("alpha", "beta", "gamma"), lambda _: None)
                for n in range(AGENTS)
            ]
            made = AgentHost(on.addresses.redis_url, agents, name=f"host-{host}")
            made.start()
            stack.push_async_callback(made.stop, 0.0)
        client = await stack.enter_async_context(Client(on.addresses))
        await client.call(creating)
        await wait(lambda: shown(on, HOSTS), "all hosts")

        async def run(turn: int) -> None:
            starting = [commands.start_execution(creating.root) for _ in range(RUNS)]
            await asyncio.gather(*map(client.call, starting))
            await wait(lambda: ended(on, turn * RUNS), f"the ends of turn {turn}")

        await run(1)
        before = await connected(on)
        assert on.redis_proxy.cut() >= HOSTS, "void: hardly anybody was there"
        await run(2)
        await wait(lambda: shown(on, HOSTS), "all hosts again")
        assert await connected(on) <= before * 1.1
    await whole_log(on)


async def shown(on: Ground, hosts: int) -> bool:
    return bool(await on.redis.hlen("hosts") >= hosts)


async def connected(on: Ground) -> int:
    return int((await on.redis.info("clients"))["connected_clients"])


async def ended(on: Ground, count: int) -> bool:
    async with on.database() as database:
        return bool(await database.fetchval(ENDED) == count)


async def whole_log(on: Ground) -> None:
    async def well() -> bool:
        async with on.database() as database:
            return not violations(await checker.read(database, on.redis))

    await wait(well, "a whole log")
