"""One suite for Redis and for its stand-in in memory, which simulations trust to be like it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.bus import Bus, id_parts
from streams.partition import events_key
from tests.fake_bus import FakeBus


@pytest.fixture(params=["redis", "memory"])
async def bus(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield FakeBus()
        return
    made = Bus(redis_url)
    await made.open()
    yield made
    await made.close()


def events(first: int, last: int, history: str = "a") -> list[bytes]:
    """What the log has at these positions."""
    return [f"{history}{position}".encode() for position in range(first, last + 1)]


async def stored(bus: Any, key: str) -> list[tuple[str, bytes]]:
    return [entry async for entry in bus.scan(key)]


async def test_entries_come_in_order_once_and_after_the_id_that_was_given(bus):
    ids = await bus.append({"s": [b"1", b"2", b"3"], "t": [b"4"]})
    assert [id_parts(one.decode()) for one in ids["s"]] == sorted(
        {id_parts(one.decode()) for one in ids["s"]}
    )
    first = await bus.read({"s": "0-0", "t": "0-0", "u": "0-0"}, 2, 1)
    assert {key: [m for _, m in found] for key, found in first.items()} == {
        "s": [b"1", b"2"], "t": [b"4"]
    }  # fmt: skip
    rest = await bus.read({"s": first["s"][-1][0]}, 2, 1)
    assert [message for _, message in rest["s"]] == [b"3"]
    assert await bus.read({"s": rest["s"][-1][0]}, 2, 1) == {}
    assert await bus.last_id("s") == rest["s"][-1][0]


async def test_what_is_trimmed_is_gone_and_its_ids_are_not_given_again(bus):
    ids = [one.decode() for one in (await bus.append({"s": [b"1", b"2", b"3"]}))["s"]]
    await bus.trim({"s": ids[2], "nothing": "5-0"})
    left = await stored(bus, "s")
    assert left[-1] == (ids[2], b"3")  # Redis may keep more, in whole nodes
    [new] = (await bus.append({"s": [b"4"]}))["s"]
    assert id_parts(new.decode()) > id_parts(ids[2])


async def test_a_stream_that_is_forgotten_begins_anew(bus):
    await bus.mirror([(3, 1, events(1, 5))])
    await bus.forget(events_key(3))
    await bus.forget("nothing")
    assert await bus.last_id(events_key(3)) == "0-0"
    assert await bus.mirror([(3, 1, events(1, 1))]) == [[1, 0, 0]]


async def test_a_mirror_has_the_positions_as_ids_and_takes_each_event_once(bus):
    assert await bus.mirror([(0, 1, events(1, 3)), (1, 1, events(1, 1))]) == [[3, 0, 0], [1, 0, 0]]
    assert await bus.mirror([(0, 2, events(2, 5))]) == [[2, 2, 0]]
    assert await bus.mirror([(0, 1, events(1, 5))]) == [[0, 5, 0]]
    found = await stored(bus, events_key(0))
    assert found == [(f"{n}-0", m) for n, m in enumerate(events(1, 5), 1)]
    assert await bus.last_ids([events_key(0), events_key(1), "nothing"]) == ["5-0", "1-0", "0-0"]


async def test_a_mirror_of_another_history_is_begun_afresh(bus):
    await bus.mirror([(0, 1, events(1, 5))])
    [[appended, _, afresh]] = await bus.mirror([(0, 4, events(4, 6, "b"))])
    assert (appended, afresh) == (3, 1)
    assert await stored(bus, events_key(0)) == [
        (f"{n}-0", m) for n, m in enumerate(events(4, 6, "b"), 4)
    ]


async def test_a_mirror_never_has_a_hole(bus):
    await bus.mirror([(0, 1, events(1, 2))])
    assert await bus.mirror([(0, 5, events(5, 6))]) == [[2, 0, 1]]
    assert [entry for entry, _ in await stored(bus, events_key(0))] == ["5-0", "6-0"]


async def test_an_incarnation_lasts_while_the_server_does(bus):
    assert await bus.incarnation() == await bus.incarnation()
    assert await bus.hash("nothing") == {}


SHARES = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 5), st.sampled_from("aab")), max_size=8
)


@given(SHARES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_both_answer_the_same_to_any_mirroring(redis_url, shares):
    """Whatever is mirrored again, late, torn or of another history."""
    real, memory = Bus(redis_url), FakeBus()
    try:
        await real.forget(events_key(0))
        for first, count, history in shares:
            call = [(0, first, events(first, first + count - 1, history))]
            assert await real.mirror(call) == await memory.mirror(call)
            assert await stored(real, events_key(0)) == await stored(memory, events_key(0))
            assert await real.last_id(events_key(0)) == await memory.last_id(events_key(0))
    finally:
        await real.close()
