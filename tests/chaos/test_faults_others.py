"""Single faults of the way to Postgres, of neighbours and of operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Any

import asyncpg
import pytest

from processors import commands
from processors.client import Client
from streams.codec import encode_command
from streams.message import Command
from streams.partition import commands_key, partition_of
from tests.chaos import checker
from tests.chaos.checker_executions import violations
from tests.chaos.fleet import Child, Fleet, fleet
from tests.chaos.ground import Ground, Servers, ground
from tests.chaos.nemesis import WRITES
from tests.chaos.shapes import document, task
from tests.chaos.test_crash_points import wait

LOST = 3
HOT = 5_000  # commands for one aggregate
PAGE = 1_000
LOCK_TIMEOUT = "1s"
OWNED = "SELECT count(*) FROM cursors WHERE owner = $1 AND consumer = 'commands'"
ENDED = "SELECT count(*) FROM events WHERE type = 'ExecutionCompleted'"


@pytest.fixture
async def on(harmed: Servers) -> AsyncIterator[Ground]:
    async with ground(harmed) as made:
        yield made


@pytest.fixture
async def those(on: Ground) -> AsyncIterator[Fleet]:
    async with fleet(on) as made:
        yield made


async def whole(on: Ground) -> None:
    """Nothing is wrong, soon."""

    async def well() -> bool:
        async with on.database() as database:
            return not violations(await checker.read(database, on.redis))

    await wait(well, "a whole log")


async def owns(on: Ground, child: Child) -> int:
    async with on.database() as database:
        return int(await database.fetchval(OWNED, child.counts()["name"]))


@contextmanager
def frozen(on: Ground, *ways: Any) -> Iterator[None]:
    """Nothing passes between one worker and Postgres in these directions."""
    on.postgres_proxy.freeze(*ways)
    try:
        yield
    finally:
        on.postgres_proxy.heal()


@pytest.mark.parametrize("ways", [("down",), ("up",)], ids="-".join)
async def test_a_worker_that_is_cut_off_from_postgres_is_replaced_and_writes_nothing_later(
    ways: Sequence[str], on: Ground, those: Fleet
) -> None:
    """F29, F24, I5, I15: silent in one direction only; the others take over and go on.

    In the direction `down` the cut-off worker's commits still arrive, and only it does not know.
    """
    away = await those.worker()
    other = await those.worker(addresses=on.straight)
    flow = document("chain", [task(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(3)])
    creating = commands.create_workflow(definition=flow)
    await those.host()
    async with Client(on.straight) as client:
        await client.call(creating)

        async def run(count: int) -> None:
            starting = [commands.start_execution(creating.root) for _ in range(count)]
            await asyncio.gather(*map(client.call, starting))

        await run(10)

        async def shared() -> bool:
            return min(await owns(on, away), await owns(on, other)) > 0

        await wait(shared, "partitions for both")
        with frozen(on, *ways):
            running = asyncio.create_task(run(20))

            async def alone() -> bool:
                return await owns(on, away) == 0

            await wait(alone, "the take-over")
            await running
        await wait(lambda: away.counts()["leases_lost"] > 0, "its hearing of it")
        await wait(shared, "partitions for both again")
        await run(10)

        async def ended() -> bool:
            async with on.database() as database:
                return bool(await database.fetchval(ENDED) == 40)

        await wait(ended, "all ends")
    await whole(on)


async def test_commits_whose_answers_are_lost_one_after_the_other_count_once(
    on: Ground, those: Fleet
) -> None:
    """F20, F22, I4: each was committed, nobody was told, and each is found in the log."""
    worker = await those.worker()
    async with Client(on.straight) as client:
        for n in range(LOST):
            said = commands.register_agent(f"a{n}", name="a", roles=["r"])
            on.postgres_proxy.drop_reply(said.id.encode())
            await client.call(said)
    assert on.postgres_proxy.dropped == LOST, "void"
    await wait(lambda: worker.counts()["unknown_commits"] >= LOST, "unknown commits")
    await wait(lambda: worker.counts()["repeats"] >= LOST, "the commands that were read again")
    await whole(on)


async def test_one_hot_aggregate_keeps_nobody_from_his_turn(on: Ground, those: Fleet) -> None:
    """F49, I19, I20: thousands of commands for one agent; executions elsewhere end meanwhile."""
    await those.worker()
    await those.host()
    flow = document("chain", [task(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(3)])
    creating = commands.create_workflow(definition=flow)
    async with Client(on.addresses) as client:
        await client.call(creating)
        hot = [
            commands.register_agent("hot", name=f"n{n}", roles=["r"], capacity=1 + n % 2)
            for n in range(HOT)
        ]
        began = monotonic()
        await publish(on, hot)
        starting = [commands.start_execution(creating.root) for _ in range(10)]
        await asyncio.gather(*map(client.call, starting))
        print(f"10 executions were accepted {monotonic() - began:.2f} s after {HOT} hot commands")

        async def all_done() -> bool:
            async with on.database() as database:
                changed = "SELECT count(*) FROM events WHERE subject = 'agent/hot'"
                return bool(
                    await database.fetchval(ENDED) == 10 and await database.fetchval(changed) == HOT
                )

        await wait(all_done, "all effects")
    await whole(on)


async def publish(on: Ground, said: Sequence[Command]) -> None:
    """In pages, as fast as Redis takes them."""
    for at in range(0, len(said), PAGE):
        async with on.redis.pipeline(transaction=False) as pipe:
            for one in said[at : at + PAGE]:
                key = commands_key(partition_of(one.root, 16))
                pipe.xadd(key, {"message": encode_command(one)})
            await pipe.execute()


async def test_the_schema_changes_while_executions_run(on: Ground, those: Fleet) -> None:
    """F44: columns and indexes come and go under load, within a second's lock; nothing stops."""
    await those.worker()
    await those.host()
    flow = document("chain", [task(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(5)])
    creating = commands.create_workflow(definition=flow)
    async with (
        Client(on.addresses) as client,
        loaded(client, creating) as started,
        on.database() as database,
    ):
        await database.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        for statement in (
            "ALTER TABLE executions ADD COLUMN later text NOT NULL DEFAULT ''",
            "ALTER TABLE tasks ADD COLUMN later text",
            "CREATE INDEX CONCURRENTLY later_tasks ON tasks (scheduled_at)",
            "CREATE INDEX CONCURRENTLY later_commits ON commits (time)",
            "ALTER TABLE executions DROP COLUMN later",
            "ALTER TABLE tasks DROP COLUMN later",
            "DROP INDEX CONCURRENTLY later_commits",
        ):
            await patiently(database, statement)
            before = len(started)
            await wait(lambda b=before: len(started) > b, "further executions")

    async def ended() -> bool:
        async with on.database() as database:
            return bool(await database.fetchval(ENDED) == len(started))

    await wait(ended, "all ends")
    await whole(on)


async def patiently(database: asyncpg.Connection, statement: str) -> None:
    """As a migration does: a lock that does not come within its time is asked for again."""
    for _ in range(20):
        try:
            await database.execute(statement)
            return
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"no lock for {statement}")


@asynccontextmanager
async def loaded(client: Client, creating: Command) -> AsyncIterator[list[str]]:
    """Executions are started one after the other, while this lasts."""
    await client.call(creating)
    started: list[str] = []
    stop = asyncio.Event()

    async def start() -> None:
        while not stop.is_set():
            starting = commands.start_execution(creating.root)
            await client.call(starting)
            started.append(starting.root)

    starting = [asyncio.create_task(start()) for _ in range(4)]
    try:
        yield started
    finally:
        stop.set()
        await asyncio.gather(*starting)


def test_what_the_proxies_look_for_is_in_every_message() -> None:
    """Or the replies to commits and answers would never be lost."""
    assert WRITES in encode_command(commands.register_agent("a", name="a", roles=["r"]))
