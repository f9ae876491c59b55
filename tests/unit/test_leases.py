"""Leases by a clock of our own: kept by beating, taken over when the beat has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from streams.leases import BEATS_A_LEASE, Leases
from streams.log import WRITER, Cursor, LogUnavailable
from streams.logs.memory import MemoryLog

LEASE_S = 6.0


class Clock:
    """A monotonic clock that somebody moves."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Process:
    """One process that wants partitions."""

    def __init__(self, log: MemoryLog, name: str, began: float = 0.0) -> None:
        self.clock = Clock(began)
        self.leases = Leases(log, WRITER, name, LEASE_S, self.clock)

    async def round(self, after_s: float = 0.0) -> set[int]:
        """Beat and look, some time later by its own clock; returns what it holds."""
        self.clock.now += after_s
        await self.leases.round()
        return set(self.leases.held)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(2)


@pytest.fixture
def old(log: MemoryLog) -> Process:
    return Process(log, "old")


@pytest.fixture
def new(log: MemoryLog) -> Process:
    return Process(log, "new", began=1_000_000.0)


async def test_what_is_free_is_taken_at_once(old):
    assert await old.round() == {0, 1}
    assert {cursor.epoch for cursor in old.leases.held.values()} == {1}


async def test_what_beats_is_not_taken(old, new):
    """F25."""
    await old.round()
    for _ in range(10):
        assert await new.round(LEASE_S) == set()
        assert await old.round(LEASE_S) == {0, 1}


async def test_what_has_not_moved_for_the_lease_time_is_taken_over(old, new):
    """F24: by the challenger's own clock, however long that takes elsewhere."""
    await old.round()
    assert await new.round(LEASE_S) == set(), "seen for the first time, whatever its age"
    assert await new.round(LEASE_S - 0.1) == set()
    assert await new.round(0.1) == {0, 1}
    assert {cursor.epoch for cursor in new.leases.held.values()} == {2}


async def test_a_beat_begins_the_wait_anew(old, new):
    await old.round()
    await new.round()
    await new.round(LEASE_S - 0.1)
    await old.round()
    assert await new.round(0.2) == set()
    assert await new.round(LEASE_S - 0.1) == set()
    assert await new.round(0.1) == {0, 1}


async def test_a_commit_is_a_beat_as_well(old, new, log):
    await old.round()
    await new.round()
    await log.advance(WRITER, [(0, 1, 0)])
    assert await new.round(LEASE_S) == {1}


async def test_clocks_of_other_machines_do_not_matter(log):
    """F27: one an hour ahead, one behind; only differences on one's own clock count."""
    ahead, behind = Process(log, "ahead", began=3_600.0), Process(log, "behind", began=-7_200.0)
    await ahead.round()
    await behind.round()
    assert await ahead.round(LEASE_S / 2) == {0, 1}
    assert await behind.round(LEASE_S / 2) == set()
    ahead.clock.now += 1e9  # it is stopped, and its clock jumps
    assert await behind.round(LEASE_S / 2) == set()
    assert await behind.round(LEASE_S) == {0, 1}


async def test_who_comes_back_finds_that_it_has_lost(old, new):
    """F24, I5."""
    await old.round()
    await new.round()
    await new.round(LEASE_S)
    old.leases._changed.clear()
    assert await old.round(0.1) == set()
    assert old.leases._changed.is_set()
    assert await new.round(0.1) == {0, 1}


async def test_who_stops_hands_over_at_once(old, new):
    await old.round()
    assert await new.round() == set()
    await old.leases.stop()
    assert old.leases.held == {}
    assert await new.round() == {0, 1}


async def test_a_zombie_that_stops_releases_nothing_of_others(old, new, log):
    """F24."""
    await old.round()
    await new.round()
    await new.round(LEASE_S)
    await old.leases.stop()
    assert {cursor.owner for cursor in await log.cursors(WRITER)} == {"new"}


async def test_only_one_of_two_challengers_wins(log, old):
    """I5."""
    await old.round()
    one, two = Process(log, "one"), Process(log, "two")
    for process in (one, two):
        await process.round()
        process.clock.now += LEASE_S
    await asyncio.gather(one.leases.round(), two.leases.round())
    held = [sorted(one.leases.held), sorted(two.leases.held)]
    assert sorted(held) == [[], [0, 1]]
    assert {cursor.epoch for cursor in await log.cursors(WRITER)} == {2}


async def test_what_was_lost_comes_back_only_after_it_was_seen_to_be_lost(old, new):
    """F24: or whoever works on it would go on with what it had before others wrote."""
    await old.round()
    await old.leases.changed()
    await new.round()
    await new.round(LEASE_S)
    await new.leases.stop()
    assert await old.round() == set(), "free, and not taken in the round that found it lost"
    assert await old.round() == set()
    await old.leases.changed()
    assert await old.round() == {0, 1}
    assert {cursor.epoch for cursor in old.leases.held.values()} == {3}


# Retaking ---------------------------------------------------------------------------------------


async def test_retaking_ends_whatever_is_still_on_its_way(old, log):
    """F22: the old epoch writes nothing more, even where its commit arrives late."""
    await old.round()
    before = old.leases.held[0]
    fresh = await old.leases.retake(0)
    assert fresh is not None
    assert (fresh.owner, fresh.epoch) == ("old", before.epoch + 1)
    assert old.leases.held[0] is fresh
    assert await log.advance(WRITER, [(0, before.epoch, 0)]) == set()
    assert await log.advance(WRITER, [(0, fresh.epoch, 0)]) == {0}
    assert await old.round() == {0, 1}


async def test_what_belongs_to_somebody_else_is_not_retaken(old, new):
    await old.round()
    await new.round()
    await new.round(LEASE_S)
    assert await old.leases.retake(0) is None
    assert set(old.leases.held) == {1}
    assert await old.leases.retake(0) is None, "nor what is not held any more"
    assert await new.round() == {0, 1}


class Meddling(MemoryLog):
    """Between our look and our take, somebody does something."""

    beats = 0
    thief: str | None = None

    async def take(self, seen: Sequence[Cursor], owner: str) -> list[Cursor]:
        if self.beats:
            self.beats -= 1
            cursor = self._cursors[WRITER, 0]
            await self.beat(WRITER, {0: cursor.epoch})
            if self.thief:
                await super().take([self._cursors[WRITER, 0]], self.thief)
        return await super().take(seen, owner)


@pytest.mark.parametrize(("beats", "taken"), [(1, True), (2, True), (BEATS_A_LEASE, False)])
async def test_a_beat_of_our_own_between_look_and_take_is_tried_again(beats, taken):
    log = Meddling(1)
    process = Process(log, "me")
    await process.round()
    log.beats = beats
    assert (await process.leases.retake(0) is not None) is taken
    assert bool(process.leases.held) is taken


async def test_a_take_over_between_look_and_take_is_respected():
    log = Meddling(1)
    process = Process(log, "me")
    await process.round()
    log.beats, log.thief = 1, "thief"
    assert await process.leases.retake(0) is None
    assert process.leases.held == {}
    [cursor] = await log.cursors(WRITER)
    assert cursor.owner == "thief"


# The loop ---------------------------------------------------------------------------------------


class Away(MemoryLog):
    """A log that now and then does not answer, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__(1)
        self.away = False
        self.asked = asyncio.Event()

    async def beat(self, consumer: str, held: Mapping[int, int]) -> set[int]:
        self.asked.set()
        if self.away:
            raise LogUnavailable("away")
        return await super().beat(consumer, held)

    async def release(self, consumer: str, held: Mapping[int, int]) -> None:
        if self.away:
            raise LogUnavailable("away")
        await super().release(consumer, held)


async def test_it_goes_on_beating_over_an_outage_and_says_what_has_changed():
    """F20."""
    log = Away()
    leases = Leases(log, WRITER, "me", lease_s=0.03)
    async with asyncio.timeout(5):
        await leases.start()
        await leases.changed()
        assert set(leases.held) == {0}
        for away in (True, False):
            log.away = away
            for _ in range(2):
                log.asked.clear()
                await log.asked.wait()
        assert set(leases.held) == {0}
        assert log._cursors[WRITER, 0].beat > 0
        log.away = True
        await leases.stop()
        assert leases.held == {}
        await leases.changed()


async def test_what_a_write_found_lost_is_forgotten_and_said(old):
    await old.round()
    await old.leases.changed()
    old.leases.forget(0)
    await asyncio.wait_for(old.leases.changed(), 1)
    assert set(old.leases.held) == {1}
    old.leases.forget(0)
    assert not old.leases._changed.is_set(), "said once"


class Slow(MemoryLog):
    """A log whose take-overs are made at once and answered later."""

    def __init__(self) -> None:
        super().__init__(2)
        self.made, self.answer = asyncio.Event(), asyncio.Event()

    async def take(self, seen: Sequence[Cursor], owner: str) -> list[Cursor]:
        taken = await super().take(seen, owner)
        if owner == "me":
            self.made.set()
            await self.answer.wait()
        return taken


async def test_what_is_just_being_taken_is_handed_back_as_well():
    """A stop in the middle of a take-over leaves nothing that others must wait for."""
    log = Slow()
    other = Leases(log, WRITER, "other", clock=Clock())
    await other.round()
    leases = Leases(log, WRITER, "me", lease_s=0.03)
    async with asyncio.timeout(5):
        await leases.start()  # everything is another's; who then goes
        await other.stop()
        await log.made.wait()
        stopping = asyncio.create_task(leases.stop())
        await asyncio.sleep(0)
        log.answer.set()
        await stopping
    assert [cursor.owner for cursor in await log.cursors(WRITER)] == [None, None]


async def test_a_beat_that_went_back_says_that_the_log_is_an_older_copy(log, old):
    """F28: what we hold is dropped, since our memory is ahead of it; then it is taken anew."""
    await old.round()
    for _ in range(3):
        await old.round(1.0)
    older = log._held(WRITER, 1, old.leases.held[1].epoch)
    assert older is not None
    older.beat = 0
    assert await old.round(1.0) == {0}
    await old.leases.changed()
    await old.round(1.0)
    assert await old.round(LEASE_S) == {0, 1}
    assert old.leases.held[1].epoch == 2


class Mistaken(MemoryLog):
    """A log that fails once in a way that nobody has thought of."""

    def __init__(self) -> None:
        super().__init__(2)
        self.beats = 0

    async def beat(self, consumer: str, held: Mapping[int, int]) -> set[int]:
        self.beats += 1
        if self.beats == 1:
            raise RuntimeError("nobody has thought of this")
        return await super().beat(consumer, held)


async def test_a_mistake_in_one_round_does_not_end_the_beats():
    log = Mistaken()
    leases = Leases(log, WRITER, "me", lease_s=0.03)
    async with asyncio.timeout(5):
        await leases.start()
        while log.beats < 3:  # noqa: ASYNC110 - beats are the leases' own
            await asyncio.sleep(0.005)
        assert leases.held.keys() == {0, 1}
        assert leases.counters.rounds_missed == 1
        await leases.stop()
