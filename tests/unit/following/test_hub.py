"""One reader for all: each follower hears what it wants, once and in order (R50, F17, F28, F52)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import groupby
from random import Random

import orjson
import pytest

from processors.following import subscription
from processors.following.subscription import CLOSING, SLOW, WENT_BACK
from processors.following.wanted import Wanted
from streams.ending import end
from streams.log import WRITER
from streams.partition import events_key, partition_of
from tests.following import PARTITIONS, TENANT, World

EVERYTHING = Wanted(TENANT)
TURNS_MAX = 2_000
STEPS = 60


@pytest.fixture
async def world():
    made = World()
    yield made
    await made.hub.close()


@asynccontextmanager
async def listening(ear):
    """The ear follows until the end of the block."""
    task = asyncio.create_task(ear.listen())
    try:
        for _ in range(TURNS_MAX):
            if ear.at is not None or task.done():
                break
            await asyncio.sleep(0)
        yield task
    finally:
        await end(task)


async def turns(condition, what):
    """Let the loop turn until something is so."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{what} has not come")


def an_id(prefix, partition):
    return next(
        name for n in range(1_000) if partition_of(name := f"{prefix}-{n}", PARTITIONS) == partition
    )


def in_order(heard):
    """The positions by partition, as they were heard."""
    places = sorted(
        ((e["partition"], e["position"]) for e in map(orjson.loads, heard)), key=lambda p: p[0]
    )
    return {p: [n for _, n in some] for p, some in groupby(places, key=lambda p: p[0])}


@pytest.mark.parametrize("seed", range(60))
async def test_nobody_misses_or_hears_twice_whatever_happens(world, seed, monkeypatch):
    """Gaps in the mirror, full queues; followers come, go, dawdle, and go on from their place."""
    monkeypatch.setattr(subscription, "QUEUE_EVENTS_MAX", 4)
    random = Random(seed)
    executions = {p: [an_id(w, p) for w in ("w1", "w2")] for p in range(PARTITIONS)}
    for partition, names in executions.items():
        await world.commit(partition, *(("ExecutionStarted", f"execution/{n}") for n in names))
    wants = [
        EVERYTHING,
        Wanted(TENANT, workflow="w1"),
        Wanted(TENANT, subjects=frozenset({f"execution/{executions[0][1]}"})),
        Wanted(TENANT, workflow="w2", types=frozenset({"B"})),
        Wanted("nobody"),
    ]
    ears = [world.ear(random.choice(wants)) for _ in range(6)]
    for ear in ears:
        ear.at, ear.pause = (
            dict.fromkeys(ear.wanted.partitions(PARTITIONS), 0),
            random.choice((0, 0, 1, 3)),
        )
    tasks = {}
    for _ in range(STEPS):
        match random.randrange(6):
            case 0 | 1 | 2:
                partition = random.randrange(PARTITIONS)
                subject = f"execution/{random.choice(executions[partition])}"
                said = [(random.choice("AB"), subject) for _ in range(random.randrange(1, 9))]
                await world.commit(partition, *said, mirror=random.random() < 0.7)
            case 3:
                partition = random.randrange(PARTITIONS)
                key = events_key(partition)
                world.bus.lose(key, random.sample(ids := world.bus.ids(key), len(ids) // 2))
            case 4:
                ear = random.choice(ears)
                if ear not in tasks or tasks[ear].done():
                    tasks[ear] = asyncio.create_task(ear.listen())
            case 5 if tasks:
                await end(tasks.pop(random.choice(list(tasks))))
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)
    for partition in range(PARTITIONS):
        await world.mirror(partition)
    for ear in ears:
        if ear not in tasks or tasks[ear].done():
            tasks[ear] = asyncio.create_task(ear.listen())
    for ear in ears:
        truth = await world.all(ear.wanted)
        await turns(
            lambda ear=ear, truth=truth: len(ear.heard) >= len(truth), f"all of {ear.wanted}"
        )
        assert sorted(ear.heard) == sorted(truth)
        assert all(places == sorted(places) for places in in_order(ear.heard).values())
    for task in tasks.values():
        await end(task)


async def test_what_the_mirror_does_not_have_is_heard_from_the_table(world):
    ear = world.ear(EVERYTHING)
    async with listening(ear):
        await world.commit(0, *[("A", "execution/x-1")] * 5, mirror=False)
        await world.mirror(0)
        world.bus.lose(events_key(0), ["1-0", "3-0"])
        await turns(lambda: len(ear.heard) == 5, "everything")
    assert in_order(ear.heard) == {0: [1, 2, 3, 4, 5]}


async def test_a_follower_whose_other_side_does_not_read_is_dropped_alone(world, monkeypatch):
    monkeypatch.setattr(subscription, "QUEUE_EVENTS_MAX", 4)
    slow, good = world.ear(EVERYTHING), world.ear(EVERYTHING)
    async with listening(slow), listening(good):
        slow.subscription.sending_since = 0.0
        slow.pause = TURNS_MAX
        for _ in range(10):
            await world.commit(0, ("A", "execution/x-1"), ("B", "execution/x-1"))
        await turns(lambda: len(good.heard) == 20, "everything")
        assert slow.subscription.ended.result() == SLOW
        assert world.hub.dropped == 1


async def test_a_follower_that_has_no_time_is_waited_for_and_never_dropped(world, monkeypatch):
    monkeypatch.setattr(subscription, "QUEUE_EVENTS_MAX", 4)
    busy = world.ear(EVERYTHING)
    async with listening(busy):
        busy.pause = 20
        await world.commit(0, *[("A", "execution/x-1")] * 30)
        await turns(lambda: len(busy.heard) == 30, "everything")
    assert busy.why is None
    assert world.hub.dropped == 0


async def test_large_events_fill_a_queue_by_their_bytes(world, monkeypatch):
    monkeypatch.setattr(subscription, "QUEUE_BYTES_MAX", 10)
    slow = world.ear(EVERYTHING)
    async with listening(slow):
        slow.subscription.sending_since, slow.pause = 0.0, TURNS_MAX
        for _ in range(4):
            await world.commit(0, ("A", "execution/x-1"))
        await turns(slow.subscription.ended.done, "the drop")
    assert slow.subscription.ended.result() == SLOW


async def test_a_log_that_lost_its_end_ends_everybody(world, monkeypatch):
    """F28: what was heard may not be so any more."""
    monkeypatch.setattr("processors.following.hub.HEADS_S", 0.0)
    ear, later = world.ear(EVERYTHING), world.ear(EVERYTHING)
    await world.commit(0, ("A", "execution/x-1"), ("A", "execution/x-1"))
    async with listening(ear) as task:
        world.log._cursors[WRITER, 0].position = 0
        await turns(task.done, "the end")
        assert ear.why == WENT_BACK
    async with listening(later):
        assert later.at == {0: 0, 1: 0}


async def test_nothing_is_read_while_nobody_listens(world):
    ear = world.ear(EVERYTHING)
    async with listening(ear):
        pass
    await asyncio.sleep(0)
    calls = world.bus.calls
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.bus.calls == calls


async def test_executions_are_looked_up_once_and_only_for_followers_of_workflows(world):
    name = an_id("w1", 0)
    await world.commit(0, ("ExecutionStarted", f"execution/{name}"))
    everything, workflow = world.ear(EVERYTHING), world.ear(Wanted(TENANT, workflow="w1"))
    async with listening(everything):
        await world.commit(0, ("A", f"execution/{name}"))
        await turns(lambda: everything.heard, "the event")
        assert world.lookups == 0
        async with listening(workflow):
            for _ in range(3):
                await world.commit(0, ("A", f"execution/{name}"), ("A", "execution/unknown-1"))
            await turns(lambda: len(workflow.heard) == 3, "its events")
    assert world.lookups == 2 or world.lookups == 1


async def test_closing_ends_everybody(world):
    ear = world.ear(EVERYTHING)
    async with listening(ear) as task:
        await world.hub.close()
        await turns(task.done, "the end")
    assert ear.why == CLOSING
