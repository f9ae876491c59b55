"""Reading the tail: every event once and in order, whatever happens to its mirror."""

from __future__ import annotations

import pytest

from streams.log import LogUnavailable
from streams.partition import events_key
from streams.tail import LOOK_S, READ_ENTRIES_MAX
from tests.tailing import World


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_mirrored_is_read_from_the_mirror(world):
    await world.commit(0, 3)
    assert await world.read()
    reads = world.log.reads
    for _ in range(5):
        await world.commit(0, 2)
        await world.commit(1, 1)
        assert await world.read()
    assert world.log.reads == reads
    assert world.whole(0)
    assert world.whole(1)
    assert world.tail.gaps == 0


async def test_at_the_beginning_nothing_is_taken_for_granted(world):
    """F2: what was committed and never mirrored is read from the table."""
    await world.commit(0, 3, mirror=False)
    assert await world.read()
    assert world.whole(0)


async def test_a_gap_is_filled_from_the_table_and_then_the_mirror_is_read_again(world):
    """F17."""
    await world.commit(0, 1)
    await world.read()
    await world.commit(0, 6)
    world.bus.lose(events_key(0), ["4-0", "5-0"])
    assert await world.read()
    assert world.got[0][-1] == b"0/3", "the unbroken beginning is of use"
    assert world.tail.gaps == 1
    assert await world.read()
    assert world.whole(0)
    reads = world.log.reads
    await world.commit(0, 1)
    assert await world.read()
    assert world.whole(0)
    assert world.log.reads == reads


async def test_a_trimmed_beginning_is_a_gap(world):
    """F17: the reader was slower than the trim."""
    await world.commit(0, 1)
    await world.read()
    await world.commit(0, 9)
    await world.bus.trim({events_key(0): "6-0"})
    assert not await world.read()
    assert await world.read()
    assert world.whole(0)


async def test_a_gap_in_one_partition_holds_up_no_other(world):
    """I19."""
    await world.commit(0, 1)
    await world.read()
    await world.commit(0, 3)
    await world.commit(1, 3)
    world.bus.lose(events_key(0), ["2-0"])
    assert await world.read()
    assert world.whole(1)
    assert await world.read()
    assert world.whole(0)


async def test_an_end_that_was_lost_is_found_in_a_quiet_moment(world):
    """F12: nothing comes, so the heads are compared."""
    await world.commit(0, 2)
    await world.read()
    await world.commit(0, 2)
    world.bus.flush()
    assert not await world.read(), "nothing in the mirror"
    assert await world.read()
    assert world.whole(0)


async def test_an_end_that_was_lost_is_found_beside_a_busy_partition(world):
    """F12, I15: also where another partition never lets a quiet moment come."""
    await world.commit(0, 2)
    await world.commit(1, 2)
    await world.read()
    await world.commit(0, 2)
    world.bus.lose(events_key(0))
    reads = 0
    while not world.whole(0):
        await world.commit(1, 1)
        assert await world.read()
        world.now += LOOK_S / 4
        reads += 1
        assert reads < 12
    assert reads > 4, "a look was due, and not at every read"
    await world.read()
    assert world.whole(1)


async def test_a_busy_reader_looks_at_the_heads_now_and_then_only(world):
    await world.commit(0, 1)
    await world.read()
    looks = world.log.looks
    for _ in range(20):
        await world.commit(0, 1)
        assert await world.read()
        world.now += LOOK_S / 10
    assert world.log.looks - looks <= 2
    assert world.log.reads == 1, "what has moved since the last look is not read from the table"


async def test_without_redis_the_table_is_read(world):
    """F14, F16."""
    await world.commit(0, 2)
    await world.read()
    world.bus.away = True
    await world.commit(0, 2, mirror=False)
    assert not await world.read()
    assert await world.read()
    assert world.whole(0)
    world.bus.away = False
    await world.mirror(0)
    await world.commit(0, 1)
    assert await world.read()
    assert world.whole(0)


async def test_without_redis_the_reader_pauses_between_two_looks(world, monkeypatch):
    """F16: no busy loop."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    world.bus.away = True
    monkeypatch.setattr("streams.tail.asyncio.sleep", sleep)
    for _ in range(3):
        assert await world.tail.read(world.positions, 500) == {}
    assert [one for one in pauses if one] == [0.2, 0.2, 0.2]


async def test_an_outage_of_the_log_is_said_and_loses_nothing(world):
    """F20."""
    await world.commit(0, 1)
    await world.read()
    await world.commit(0, 2)
    world.bus.lose(events_key(0), ["2-0"])
    assert not await world.read()
    world.log.away = True
    with pytest.raises(LogUnavailable):
        await world.read()
    world.log.away = False
    assert await world.read()
    assert world.whole(0)


async def test_a_long_history_is_read_in_pages(world, monkeypatch):
    monkeypatch.setattr("streams.tail.READ_EVENTS_MAX", 10)
    await world.commit(0, 25, mirror=False)
    assert [await world.read() for _ in range(4)] == [True, True, True, False]
    assert world.whole(0)
    await world.commit(1, READ_ENTRIES_MAX + 1)
    while not world.whole(1):
        await world.read()


async def test_long_histories_take_turns_and_no_read_takes_more_than_one_page(world, monkeypatch):
    monkeypatch.setattr("streams.tail.READ_EVENTS_MAX", 10)
    await world.commit(0, 25, mirror=False)
    await world.commit(1, 12, mirror=False)
    before = 0
    for number in range(1, 5):
        assert await world.read()
        now = len(world.got[0]) + len(world.got[1])
        assert 0 < now - before <= 10
        before = now
        if number == 2:
            assert (len(world.got[0]), len(world.got[1])) == (10, 10)
    while await world.read():
        pass
    assert world.whole(0)
    assert world.whole(1)


async def test_only_the_partitions_that_are_asked_for_are_read(world):
    await world.commit(0, 1)
    await world.commit(1, 1)
    del world.positions[1]
    while await world.read():
        pass
    assert world.whole(0)
    assert world.got[1] == []
