"""The loop of the command processor: in order, pipelined, and as one writer of a partition."""

from __future__ import annotations

import asyncio

import pytest

from streams.partition import commands_key
from tests.deciding import LEASE_S, Process, World, until
from tests.partitions import here
from tests.tallies import add


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits before it tries again."""
    monkeypatch.setattr("processors.command_processor.RETRY_S", 0)
    monkeypatch.setattr("processors.command_feed.PAUSE_S", 0)
    monkeypatch.setattr("processors.command_feed.UNOWNED_S", 0)


@pytest.fixture
def world() -> World:
    return World()


# As it should be --------------------------------------------------------------------------------


async def test_commands_are_decided_committed_mirrored_and_answered_in_order(world):
    said = [add(n) for n in range(1, 6)]
    world.publish(*said)
    await (await world.me.begin()).run()
    assert await world.numbers() == [1, 2, 3, 4, 5]
    assert [o.command_id for o in world.outcomes()] == [c.id for c in said]
    assert [(o.first, o.last) for o in world.outcomes()] == [(n, n) for n in range(1, 6)]
    assert world.log.appends == [[5]], "one batch, one commit"
    await world.whole()
    assert await world.mirrored()


async def test_one_commit_covers_all_partitions():
    world = World(3)
    roots = [here("t", partition, 3) for partition in range(3)]
    world.publish(*[add(n, root) for n in (1, 2) for root in roots])
    await (await world.me.begin()).run()
    assert world.log.appends == [[2, 2, 2]]
    for partition in range(3):
        assert await world.numbers(partition) == [1, 2]
        assert await world.mirrored(partition)


async def test_what_was_committed_is_read_on_from_after_a_restart(world):
    world.publish(add(1))
    await (await world.me.begin()).run()
    await world.me.leases.stop()
    world.publish(add(2))
    after = await (await Process(world.log, world.bus, "next").begin()).run()
    assert await world.numbers() == [1, 2]
    assert after.processor.counters.repeats == 0, "the offset was kept with the commit"


async def test_committed_entries_are_trimmed_and_no_others(world):
    """I16, F17."""
    world.publish(add(1), add(2))
    await (await world.me.begin()).run()
    world.publish(add(3))
    await world.me.processor.trim()
    assert len(world.bus.ids(commands_key(0))) == 2, "the last one that was passed marks the place"
    await world.me.run()
    assert await world.numbers() == [1, 2, 3]


async def test_a_stopped_process_finishes_what_it_has_in_hand(world):
    world.publish(add(1))
    await world.me.begin()
    await world.me.step()
    await world.me.processor.drain()
    assert await world.numbers() == [1]
    assert await world.mirrored()
    assert len(world.outcomes()) == 1


# Pipelining -------------------------------------------------------------------------------------


async def test_the_next_batch_is_decided_while_the_last_commits(world):
    """I2: on the states that the first will have made."""
    world.publish(add(1))
    await world.me.begin()
    world.log.gate = asyncio.Event()
    await world.me.step()
    await world.log.waiting.wait()
    world.publish(add(2), add(0))
    second = asyncio.create_task(world.me.step())
    part = world.me.processor.parts[0]
    await until(lambda: part.head == 3)
    assert not second.done()
    assert await world.events() == []
    world.log.gate.set()
    assert await second
    await world.me.run()
    assert await world.numbers() == [1, 2]
    assert world.log.appends == [[1], [2]]
    await world.whole()
    assert await world.mirrored()


async def test_the_next_batch_is_dropped_and_read_again_if_the_last_does_not_come_about(world):
    """F22, I4."""
    world.publish(add(1))
    await world.me.begin()
    world.log.gate = asyncio.Event()
    world.log.faults = ["unknown"]
    await world.me.step()
    world.publish(add(2))
    second = asyncio.create_task(world.me.step())
    dropped = world.me.processor.parts[0]
    await until(lambda: dropped.head == 2)
    world.log.gate.set()
    assert await second
    await world.me.processor.settle()
    assert not dropped.valid
    assert await world.events() == [], "what was built on it is not committed"
    await world.me.run()
    assert await world.numbers() == [1, 2]
    assert world.me.leases.held[0].epoch == 2
    await world.whole()


async def test_nothing_is_opened_again_while_a_commit_is_under_way(world):
    """F22: the agent crashed beside it; it ends first, under the epoch that it began with."""
    world.publish(add(1))
    await world.me.begin()
    world.log.gate = asyncio.Event()
    await world.me.step()
    await world.log.waiting.wait()
    await world.me.feed.rewind()
    second = asyncio.create_task(world.me.step())
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.me.leases.held[0].epoch == 1
    world.log.gate.set()
    await second
    await world.me.run()
    assert await world.numbers() == [1]
    assert world.me.leases.held[0].epoch == 2
    assert world.me.processor.counters.fenced == 0


# Fences -----------------------------------------------------------------------------------------


async def over_to(other: Process, me: Process) -> None:
    """The other one has seen no beat for the lease time, and takes over."""
    await other.leases.round()
    other.now += LEASE_S
    await other.leases.round()
    await other.settle_assignment()
    assert set(me.leases.held) == {0}, "who was stopped does not know"


async def test_a_writer_that_was_overtaken_writes_nothing_and_drops_its_state(world):
    """F24, I5, I4."""
    world.publish(add(1))
    await (await world.me.begin()).run()
    other = Process(world.log, world.bus, "other")
    world.publish(add(2))
    await world.me.step()
    await world.me.processor.drain()
    world.publish(add(3))
    batch = await world.me.feed.next()
    assert batch is not None
    await over_to(other, world.me)
    await world.me.processor.handle(batch.entries)
    await world.me.processor.drain()
    assert world.me.processor.counters.fenced == 1
    assert world.me.leases.held == {}
    assert await world.numbers() == [1, 2]
    await world.me.settle_assignment()
    assert world.me.processor.parts == {}
    assert not await world.me.step()
    await other.run()
    assert await world.numbers() == [1, 2, 3]
    await world.whole()
    assert await world.mirrored()


async def test_a_lost_partition_is_not_reopened(world):
    """F24: nor after an unknown commit, when somebody else has it."""
    await world.me.begin()
    other = Process(world.log, world.bus, "other")
    world.publish(add(1))
    batch = await world.me.feed.next()
    assert batch is not None
    await over_to(other, world.me)
    world.log.faults = ["unknown"]
    await world.me.processor.handle(batch.entries)
    await world.me.processor.settle()
    assert not await world.me.step()
    assert world.me.leases.held == {}
    await other.run()
    assert await world.numbers() == [1]
