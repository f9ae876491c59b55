"""The loop of the command processor when the log or Redis fails, or refuses what it is given."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from processors.partition_state import REFUSAL
from streams.codec import encode_command
from streams.log import WRITER
from streams.partition import commands_key, events_key
from tests.deciding import MARK, Process, World, crashing
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


# Unknown commits and outages --------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unknown", "answer lost", "away"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_commit_without_an_answer_loses_and_doubles_nothing(world, fault, times):
    """F20, F21, F22, I4."""
    said = [add(1), add(0), add(2)]
    world.publish(*said)
    world.log.faults = [fault] * times
    await (await world.me.begin()).run()
    assert await world.numbers() == [1, 2]
    assert [e.type for e in await world.events()] == ["Added", REFUSAL, "Added"]
    unknown = 1 if fault == "answer lost" else times
    assert world.me.processor.counters.unknown_commits == unknown
    world.log.faults.clear()
    world.publish(*said)  # whoever has no outcome asks again
    await world.me.run()
    outcomes = {o.command_id: (o.first, o.last, bool(o.problem)) for o in world.outcomes()}
    expected = [(1, 1, False), (2, 2, True), (3, 3, False)]
    assert outcomes == dict(zip([c.id for c in said], expected, strict=True))
    assert len(await world.events()) == 3
    await world.whole()
    assert await world.mirrored()


async def test_an_outage_while_deciding_is_waited_for(world):
    """F20."""
    refused = add(0)
    world.publish(refused)
    await (await world.me.begin()).run()
    await world.me.leases.stop()
    after = await Process(world.log, world.bus, "next").begin()
    world.publish(refused, add(2))  # whether it was refused is read from the log
    world.log.read_faults = 2
    await after.run()
    assert world.log.read_faults == 0
    assert await world.numbers() == [2]
    await world.whole()


async def test_without_redis_commits_go_on_and_the_mirror_is_brought_up_later(world):
    """F12, F14, I11."""
    world.publish(add(1), add(2))
    await world.me.begin()
    batch = await world.me.feed.next()
    assert batch is not None
    world.bus.away = True
    await world.me.processor.handle(batch.entries)
    await world.me.processor.drain()
    assert await world.numbers() == [1, 2]
    assert world.me.processor.mirroring.failures == 1
    assert not await world.me.step()
    world.bus.away = False
    world.publish(add(3))
    await world.me.run()
    assert await world.numbers() == [1, 2, 3]
    assert await world.mirrored()
    assert world.me.processor.counters.repeats == 0


async def test_an_outage_of_the_log_while_mirroring_is_waited_for(world):
    """F20, I15: Redis was away, then the table is when the mirror is brought up from it."""
    world.publish(add(1))
    await world.me.begin()
    batch = await world.me.feed.next()
    assert batch is not None
    world.bus.away = True
    await world.me.processor.handle(batch.entries)
    await world.me.processor.drain()
    world.bus.away = False
    world.log.read_faults = 1
    world.publish(add(2))
    await crashing(world.me, world.me.run())
    world.publish(add(3))
    await world.me.run()
    assert await world.numbers() == [1, 2, 3]
    assert await world.mirrored()


@pytest.mark.parametrize("fault", ["away", "fenced"])
async def test_a_snapshot_that_was_not_saved_leaves_no_hole(world, monkeypatch, fault):
    """F20, I13: what was marked as saved is read again, and is in the next snapshot."""
    monkeypatch.setattr("processors.partition_loading.SNAPSHOT_EVENTS", 3)
    monkeypatch.setattr("processors.partition_loading.AGGREGATES_MAX", 0)
    await world.me.begin()
    world.log.save_faults = [fault]
    for n in range(1, 9):
        world.publish(add(n, f"t{n % 2}"))
        await world.me.run()
        if world.me.processor._saving is not None:
            await world.me.processor._saving
    assert world.log.save_faults == []
    assert (await world.log.cursors(WRITER))[0].snapshot > 3
    await world.me.leases.stop()
    after = await Process(world.log, world.bus, "next").begin()
    world.publish(add(9, "t0"), add(10, "t1"))
    await after.run()
    part = after.processor.parts[0]
    states = {subject: held.state for subject, held in part.held.items()}
    assert states == {"tally/t0": [2, 4, 6, 8, 9], "tally/t1": [1, 3, 5, 7, 10]}
    await world.whole()


async def test_the_mirror_keeps_the_order_when_redis_is_slow(world):
    """I11: one batch is on its way at a time, and the commits go on meanwhile."""
    await world.me.begin()
    gate = world.bus.gate = asyncio.Event()
    for n in (1, 2):
        world.publish(add(n))
        assert await world.me.step()
    world.publish(add(3))
    third = asyncio.create_task(world.me.step())
    for _ in range(50):
        await asyncio.sleep(0)
    assert await world.numbers() == [1, 2]
    assert world.bus.messages(events_key(0)) == []
    assert not third.done(), "it waits: no more than two batches are in hand"
    gate.set()
    await third
    await world.me.run()
    assert await world.numbers() == [1, 2, 3]
    assert await world.mirrored()


# Content that the database refuses --------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 6, 7, 12])
async def test_what_the_database_refuses_costs_its_own_command_only(world, place):
    """F32, I19, I20: found by halves, kept as a dead letter; the others go on in order."""
    said = [add(n) for n in range(1, 14)]
    said[place] = add(99, text=MARK)
    world.publish(*said)
    await (await world.me.begin()).run()
    assert await world.numbers() == [n for n in range(1, 14) if n != place + 1]
    [letter] = world.log.dead_letters.values()
    assert letter.raw == encode_command(said[place])
    assert (letter.source, letter.entry) == (commands_key(0), world.bus.ids(commands_key(0))[place])
    assert world.me.processor.counters.dead_letters == 1
    await world.whole()
    assert await world.mirrored()
    answered = {outcome.command_id: outcome.problem for outcome in world.outcomes()}
    assert answered.keys() == {c.id for c in said}
    refused = {one: problem["code"] for one, problem in answered.items() if problem}
    assert refused == {said[place].id: "UNACCEPTABLE"}
    assert (letter.tenant, letter.subject) == ("default", "tally/t")


async def test_what_the_database_refused_may_be_given_again(world):
    """F32: the log knows nothing of it; when the cause is gone it takes effect."""
    said = add(1, text=MARK)
    world.publish(said)
    await (await world.me.begin()).run()
    world.log.accepts_all = True
    world.publish(said)
    await world.me.run()
    assert await world.numbers() == [1]
    refused, accepted = world.outcomes()
    assert (refused.problem or {})["code"] == "UNACCEPTABLE"
    assert (accepted.problem, accepted.repeated) == (None, False)


async def test_care_is_given_up_when_it_is_not_needed_any_more(world, monkeypatch):
    monkeypatch.setattr("processors.command_processor.ENTRIES_MAX", 8)
    world.publish(add(1, text=MARK), *[add(n) for n in range(2, 40)])
    await (await world.me.begin()).run()
    assert await world.numbers() == list(range(2, 40))
    assert world.me.processor.careful == {}


async def test_care_is_not_given_up_while_the_last_small_batch_is_being_refused(world):
    """F32, I15: else it is halved and tried whole again, for ever."""
    world.publish(*[add(n, text=MARK) for n in range(1, 5)])
    me, read = await world.me.begin(), world.bus.read
    ahead: list[Any] = []  # what was read, and waits for the agent

    async def waiting(*arguments: Any, **said: Any) -> Any:
        found = await read(*arguments, **said)
        while not found and ahead:  # while it waited, the agent went on
            await me.processor.handle(ahead.pop(0))
            await me.processor.settle()
        return found

    world.bus.read = waiting
    for _ in range(60):
        if (batch := await me.feed.next()) is not None:
            ahead.append(batch.entries)
    assert len(world.log.dead_letters) == 4


async def test_several_refused_ones_among_several_partitions():
    """I19: neighbours in other partitions lose nothing either."""
    world = World(3)
    roots = [here("t", partition, 3) for partition in range(3)]
    said = [add(n, root) for n in range(1, 8) for root in roots]
    said[4] = add(90, roots[1], MARK)
    said[16] = add(91, roots[1], MARK)
    said[20] = add(92, roots[2], MARK)
    world.publish(*said)
    await (await world.me.begin()).run()
    assert await world.numbers(0) == [1, 2, 3, 4, 5, 6, 7]
    assert await world.numbers(1) == [1, 3, 4, 5, 7]
    assert await world.numbers(2) == [1, 2, 3, 4, 5, 6]
    assert len(world.log.dead_letters) == 3
    await world.whole()


# Another Redis ----------------------------------------------------------------------------------


async def test_after_a_restart_of_redis_without_data_everything_new_is_read(world):
    """F12: whatever ids its clock gives."""
    world.publish(add(1), add(2))
    await (await world.me.begin()).run()
    world.bus.away = True
    assert not await world.me.step()
    world.bus.away = False
    world.bus.flush(now_ms=5)
    world.publish(add(3))
    await world.me.run()
    assert await world.numbers() == [1, 2, 3]


async def test_after_a_restart_of_redis_and_of_the_process_everything_new_is_read(world):
    world.publish(add(1))
    await (await world.me.begin()).run()
    await world.me.leases.stop()
    world.bus.flush(now_ms=5)
    world.publish(add(2))
    await (await Process(world.log, world.bus, "next").begin()).run()
    assert await world.numbers() == [1, 2]
    assert await world.mirrored(), "brought up when the partition was opened"


async def test_nothing_unread_is_trimmed_from_another_redis(world):
    """F13, F27: its clock may be behind, and so its ids below the offset."""
    world.publish(add(1))
    await (await world.me.begin()).run()
    world.bus.away = True
    assert not await world.me.step()
    world.bus.away = False
    world.bus.flush(now_ms=5)
    world.publish(add(2))
    world.me.feed._trimmed = 0.0  # it is time to
    await world.me.run()
    assert await world.numbers() == [1, 2]


async def test_another_redis_that_nobody_noticed_is_not_trimmed_either(world):
    """F13, F27: between two reads, without an error."""
    world.publish(add(1))
    await (await world.me.begin()).run()
    world.bus.flush(now_ms=5)
    world.publish(add(2))
    world.me.feed._trimmed = 0.0  # it is time to
    await world.me.run()
    assert await world.numbers() == [1, 2]


async def test_a_commit_that_was_under_way_brings_no_old_offset_back(world):
    """F13, F27: it ends after the other Redis has been noticed."""
    world.log.gate = asyncio.Event()
    world.publish(add(1))
    await world.me.begin()
    await world.me.step()
    await world.log.waiting.wait()
    world.bus.away = True
    assert not await world.me.step()
    world.bus.away = False
    world.bus.flush(now_ms=5)
    assert not await world.me.step(), "it is noticed, and nothing new is there"
    world.log.gate.set()
    await world.me.processor.settle()
    world.publish(add(2))
    world.me.feed._trimmed = 0.0  # it is time to
    await world.me.run()
    assert await world.numbers() == [1, 2]


@pytest.mark.parametrize("fault", ["unknown", "answer lost", "away"])
async def test_an_outage_while_a_refused_command_is_passed_crashes_nothing(world, fault):
    """F20, F22, F32: the empty commit that passes it is a commit like any other."""
    world.publish(add(1, text=MARK), add(2))
    await world.me.begin()
    world.log.faults = ["", "", fault]  # refused twice, then passed
    await world.me.run()
    assert world.log.faults == []
    assert await world.numbers() == [2]
    assert len(world.log.dead_letters) == 1
    await world.whole()
