"""Single faults of Redis and of the way to it: each shown to happen, each without any trace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from processors import commands
from processors.agents import Agent, AgentHost, Assignment, encode_assignment
from processors.client import Client
from streams.bus import Bus, BusUnavailable
from streams.codec import encode_command
from streams.partition import COMMANDS_INBOX, commands_key, partition_of, tasks_key
from tests.chaos import checker
from tests.chaos.checker_executions import violations
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.ground import Ground, Servers, ground
from tests.chaos.test_crash_points import wait

EVENTS = "SELECT count(*) FROM events WHERE subject = $1"


@pytest.fixture
async def on(harmed: Servers) -> AsyncIterator[Ground]:
    async with ground(harmed) as made:
        yield made


@pytest.fixture
async def those(on: Ground) -> AsyncIterator[Fleet]:
    async with fleet(on) as made:
        yield made


async def events_of(on: Ground, subject: str) -> int:
    async with on.database() as database:
        return int(await database.fetchval(EVENTS, subject))


async def whole(on: Ground) -> None:
    async with on.database() as database:
        assert violations(await checker.read(database, on.redis)) == []


async def test_a_write_whose_reply_is_lost_is_not_written_twice(on: Ground) -> None:
    """F19, I4: the client library tries nothing again behind our back; who asks again decides."""
    bus = Bus(on.addresses.redis_url)
    try:
        await bus.append({"s": [b"first"]})
        on.redis_proxy.drop_reply(b"second")
        with pytest.raises(BusUnavailable):
            await bus.append({"s": [b"second"]})
        assert on.redis_proxy.dropped == 1, "void: no reply was lost"
        assert [fields[b"message"] for _, fields in await on.redis.xrange("s")] == [
            b"first",
            b"second",
        ]
        await bus.append({"s": [b"third"]})
    finally:
        await bus.close()
    assert await on.redis.xlen("s") == 3


async def test_a_client_whose_reply_was_lost_gives_the_same_command_again(
    on: Ground, those: Fleet
) -> None:
    """F8, F19, I4, I10: until it knows the outcome; one effect, one answer."""
    await those.worker()
    async with Client(on.addresses) as client:
        await client.call(commands.register_agent("a", name="a", roles=["r"]))
        said = commands.register_agent("b", name="b", roles=["r"])
        on.redis_proxy.drop_reply(said.id.encode())
        outcome = await client.call(said)
        assert outcome.problem is None
    assert on.redis_proxy.dropped == 1, "void: no reply was lost"
    assert await events_of(on, said.subject) == 1
    await whole(on)


async def test_tasks_whose_delivery_was_lost_come_in_their_order(on: Ground) -> None:
    """F19: what a lost XREADGROUP had delivered is read again, before anything newer."""
    seen: list[str] = []
    bus = Bus(on.addresses.redis_url)
    agent = Agent("a", ("r",), lambda assignment: seen.append(assignment.task_id), capacity=3)
    tasks = [f"t{n:02}" for n in range(12)]

    async def ask(names: list[str]) -> None:
        for name in names:
            one = Assignment(f"x-{name}", name, 1, "r", "default", None, {}, None, commands_key(3))
            await on.redis.xadd(tasks_key("default", "r"), {"message": encode_assignment(one)})

    async with AgentHost(bus, [agent], name="host"):
        await ask(tasks[:2])
        await wait(lambda: len(seen) == 2, "the first tasks")
        on.redis_proxy.drop_reply(b"XREADGROUP")
        await ask(tasks[2:7])
        await wait(lambda: on.redis_proxy.dropped == 1, "the loss of a delivery")
        await ask(tasks[7:])
        await wait(lambda: len(seen) == len(tasks), "all tasks")
    await bus.close()
    assert seen == tasks


async def test_an_answer_whose_acknowledgement_was_lost_counts_once(
    on: Ground, those: Fleet
) -> None:
    """F19, I7: the answer and XACK go in one script; sent again, the engine knows the answer."""
    await those.worker()
    await those.host()
    async with Client(on.addresses) as client:
        flow = {
            "name": "one",
            "version": "1",
            "agents": {"alpha": {}},
            "tasks": [{"task_id": "t", "agent_role": "alpha"}],
        }
        creating = commands.create_workflow(definition=flow)
        await client.call(creating)
        for lost in range(3):
            starting = commands.start_execution(creating.root)
            on.redis_proxy.drop_reply(b'"CompleteTask"')
            await client.call(starting)
            await wait(lambda n=lost: on.redis_proxy.dropped > n, "the loss of a reply")

            async def ended(subject: str = starting.subject) -> bool:
                async with on.database() as database:
                    kinds = await database.fetch(
                        "SELECT type FROM events WHERE subject = $1", subject
                    )
                return "ExecutionCompleted" in {kind for (kind,) in kinds}

            await wait(ended, "the end")
    seen = those.seen()
    assert seen["duplicates"] > 0, "void: nothing came twice"
    await whole(on)


async def test_the_inbox_moves_what_a_lost_delivery_left_behind(on: Ground, those: Fleet) -> None:
    """F19, I4: read and not acknowledged, it is claimed after a while."""
    await those.worker()
    on.redis_proxy.drop_reply(b"XREADGROUP")
    said = [commands.register_agent(f"a{n}", name="a", roles=["r"]) for n in range(20)]
    for command in said:
        await on.redis.xadd(COMMANDS_INBOX, {"message": encode_command(command)})

    async def moved() -> bool:
        return not await on.redis.xlen(COMMANDS_INBOX)

    await wait(moved, "an empty inbox")
    assert on.redis_proxy.dropped == 1, "void: no reply was lost"

    async def decided() -> bool:
        return all([await events_of(on, command.subject) == 1 for command in said])

    await wait(decided, "all effects")
    await whole(on)


async def test_a_redis_that_goes_back_in_time_is_read_from_its_start(
    on: Ground, those: Fleet
) -> None:
    """F13: a replica that lagged takes over; the cursors are ahead of its streams, once more."""
    worker = await those.worker()
    said = [commands.register_agent(f"a{n}", name="a", roles=["r"]) for n in range(40)]
    file = on.servers.redis.home / "appendonly.aof"
    async with Client(on.addresses) as client:
        await asyncio.gather(*map(client.call, said[:20]))
        before = file.read_bytes()
        await asyncio.gather(*map(client.call, said[20:]))
        key = commands_key(partition_of("a39", 16))
        newest = await on.redis.xinfo_stream(key)
        on.servers.redis.kill()
        on.servers.redis.stop()
        file.write_bytes(before)
        await asyncio.to_thread(on.servers.redis.start)
        back = await on.redis.xinfo_stream(key)
        assert back["last-generated-id"] < newest["last-generated-id"], "void: nothing was lost"
        more = [commands.register_agent(f"b{n}", name="b", roles=["r"]) for n in range(40)]
        await asyncio.gather(*map(client.call, more))
        await wait(lambda: worker.counts()["said"].get("redis_was_replaced"), "the alarm")
        for command in [*said, *more]:
            assert await events_of(on, command.subject) == 1

    async def mirrored() -> bool:
        async with on.database() as database:
            return not violations(await checker.read(database, on.redis))

    await wait(mirrored, "a whole mirror")


async def test_everything_killed_at_once_comes_back_in_any_order(on: Ground, those: Fleet) -> None:
    """F11: also without anybody there, what was acknowledged is done when somebody comes."""
    first = await those.worker()
    async with Client(on.addresses) as client:
        flow = {
            "name": "one",
            "version": "1",
            "agents": {"alpha": {}},
            "tasks": [{"task_id": "t", "agent_role": "alpha"}],
        }
        creating = commands.create_workflow(definition=flow)
        await client.call(creating)
        starting = [commands.start_execution(creating.root) for _ in range(10)]
        await asyncio.gather(*map(client.call, starting))
    first.signal(signal.SIGKILL)
    await on.redis.flushall()
    await asyncio.to_thread(on.servers.restart_postgres, kill=True)
    await those.host()
    await those.worker()

    async def ended() -> bool:
        async with on.database() as database:
            query = "SELECT count(*) FROM events WHERE type = 'ExecutionCompleted'"
            return bool(await database.fetchval(query) == len(starting))

    await wait(ended, "all ends")
    await whole(on)
