"""Every command takes effect once and in order, over all faults together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.codec import encode_command
from streams.logs.memory import MemoryLog
from streams.message import Command
from streams.partition import events_key
from tests.deciding import LEASE_S, MARK, Process, World, crashing
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


# Whatever happens -------------------------------------------------------------------------------

FAULTS = st.sampled_from(["unknown", "answer lost", "away", "", ""])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 50)),
        st.tuples(st.just("poison")),
        st.tuples(st.just("faults"), st.lists(FAULTS, min_size=1, max_size=3)),
        st.tuples(st.just("reads fail")),
        st.tuples(st.just("redis")),
        st.tuples(st.just("flush")),
        st.tuples(st.just("step")),
        st.tuples(st.just("step")),
        st.tuples(st.just("settle")),
        st.tuples(st.just("rewind")),
        st.tuples(st.just("take over")),
        st.tuples(st.just("trim")),
        st.tuples(st.just("save")),
    ),
    max_size=30,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
async def test_every_command_takes_effect_once_and_in_order(steps: list[tuple[Any, ...]]) -> None:
    """I1, I2, I4, I6, I10, I11, I20: over all faults together."""
    world = World()
    both = [world.me, Process(world.log, world.bus, "other")]
    me = await both[0].begin()
    said: list[Command] = []
    poisoned = 0
    flushed = False
    for step in steps:
        match step:
            case ("publish", count, marked):
                fresh = [add(len(said) + 1 + n, f"t{n % 2}") for n in range(count)]
                if marked:
                    fresh[0].data["text"] = MARK
                said += fresh
                world.publish(*fresh)
            case ("again", which) if said:
                world.publish(said[which % len(said)])
            case ("poison",):
                world.publish(b"poison", partition=0)
                poisoned += 1
            case ("faults", faults):
                world.log.faults += faults
            case ("reads fail",):
                world.log.read_faults += 1
            case ("redis",):
                world.bus.away = not world.bus.away
            case ("flush",):
                world.bus.flush()
                flushed = True
            case ("step",):
                await crashing(me, me.step())
            case ("settle",):
                await crashing(me, me.processor.settle())
            case ("rewind",):
                await me.feed.rewind()
            case ("trim",):
                await me.processor.trim()
            case ("save",):
                await save(me)
            case ("take over",) if not world.bus.away and not world.log.read_faults:
                both.reverse()
                me = both[0]
                for _ in range(3):  # it finds what it lost, sees the other stop, takes over
                    await me.leases.round()
                    await me.settle_assignment()
                    me.now += LEASE_S
    world.bus.away, world.log.faults, world.log.read_faults = False, [], 0
    await crashing(me, me.processor.settle())
    await me.run()
    world.publish(*said)  # whoever has no outcome asks again
    await me.run()
    events = await world.events()
    marked = {c.id for c in said if c.data["text"]}
    expected = [c.id for c in said if c.id not in marked]
    handled = [e.causation for e in events]
    assert handled == expected or (flushed and sorted(handled) == sorted(expected))
    letters = {(x.entry, x.raw) for x in world.log.dead_letters.values()}
    poison = len([raw for _, raw in letters if raw == b"poison"])
    assert poison == poisoned or (flushed and poison < poisoned)
    assert {raw for _, raw in letters} - {b"poison"} == {
        encode_command(c) for c in said if c.id in marked
    }
    await world.whole()
    mirror = world.bus.messages(events_key(0))
    stored = [one.message for one in await MemoryLog.read(world.log, 0, 0, 10**6)]
    assert mirror == stored[len(stored) - len(mirror) :]
    assert flushed or len(mirror) == len(stored)
    told = {o.command_id: (o.first, o.last) for o in world.outcomes()}
    assert told.items() >= {(e.causation, (e.position, e.position)) for e in events}


async def save(me: Process) -> None:
    """Save a snapshot now, as the processor does when enough has happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processors.partition_loading.SNAPSHOT_EVENTS", 1)
        patch.setattr("processors.partition_loading.AGGREGATES_MAX", 1)
        await crashing(me, me.step())
        if me.processor._saving is not None:
            await me.processor._saving
