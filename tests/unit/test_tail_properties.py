"""Every event comes once and in order, under any trims, losses, flushes and outages."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.partition import events_key
from streams.tail import LOOK_S
from tests.tailing import World

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 1), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("mirror"), st.integers(0, 1)),
        st.tuples(st.just("lose"), st.integers(0, 1), st.sets(st.integers(1, 30), max_size=4)),
        st.tuples(st.just("trim"), st.integers(0, 1), st.integers(1, 30)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("away")),
        st.tuples(st.just("read")),
        st.tuples(st.just("read")),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
async def test_every_event_comes_once_and_in_order(steps: list[tuple[Any, ...]]) -> None:
    """F12, F17, I11: under any trims, losses, flushes, outages and late mirrors."""
    world = World()
    for step in steps:
        world.now += 0.5
        match step:
            case ("commit", partition, count, mirrored):
                await world.commit(partition, count, mirrored and not world.bus.away)
            case ("mirror", partition) if not world.bus.away:
                await world.mirror(partition)
            case ("lose", partition, positions):
                world.bus.lose(events_key(partition), [f"{n}-0" for n in positions])
            case ("trim", partition, position) if not world.bus.away:
                await world.bus.trim({events_key(partition): f"{position}-0"})
            case ("flush",):
                world.bus.flush()
            case ("away",):
                world.bus.away = not world.bus.away
            case ("read",):
                await world.read()
    world.bus.away = False
    for _ in range(6):
        world.now += LOOK_S
        await world.read()
    assert world.whole(0)
    assert world.whole(1)
