"""The loop of the command processor over a log and a Redis in memory, driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregates import DECIDERS
from processors.command_feed import CommandFeed
from processors.command_processor import CommandProcessor
from processors.inbox import Inbox
from processors.partition_state import REFUSAL
from processors.replies import decode_outcome
from processors.vocabulary import Vocabulary
from streams.bus import Bus
from streams.chain import verify
from streams.codec import decode_event, encode_command
from streams.leases import Leases
from streams.log import (
    WRITER,
    CommitUnknown,
    LogUnavailable,
    Share,
    Stored,
    Unacceptable,
)
from streams.logs.memory import MemoryLog
from streams.message import Command, Event, Outcome
from streams.partition import commands_key, events_key, partition_of
from tests.fake_bus import FakeBus
from tests.partitions import NOW, here
from tests.tallies import TALLY, add

NAMES = Vocabulary((*DECIDERS, TALLY))
LEASE_S = 5.0
MARK = "unacceptable"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits before it tries again."""
    monkeypatch.setattr("processors.command_processor.RETRY_S", 0)
    monkeypatch.setattr("processors.command_feed.PAUSE_S", 0)
    monkeypatch.setattr("processors.command_feed.UNOWNED_S", 0)


class FaultyLog(MemoryLog):
    """A log with planned faults: one word for each of the next appends."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.faults: list[str] = []
        self.appends: list[list[int]] = []
        self.read_faults = 0
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else ""
        if any(MARK.encode() in message for share in shares for message in share.messages):
            raise Unacceptable("not for this database")
        if fault == "away":
            raise LogUnavailable("away")
        if fault == "unknown":
            raise CommitUnknown("nothing was committed")
        committed = await super().append(shares, time)
        self.appends.append([len(share.commands) for share in shares])
        if fault == "answer lost":
            raise CommitUnknown("it was committed")
        return committed

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        if self.read_faults:
            self.read_faults -= 1
            raise LogUnavailable("away")
        return await super().read(partition, after, limit)


class Process:
    """One process that decides, driven by hand."""

    def __init__(self, log: FaultyLog, bus: FakeBus, name: str = "me") -> None:
        self.log, self.bus = log, bus
        self.now = 0.0
        self.leases = Leases(log, WRITER, name, LEASE_S, lambda: self.now)
        self.processor = CommandProcessor(
            log, cast(Bus, bus), self.leases, lambda: NOW, log._partitions, NAMES
        )
        self.feed = CommandFeed(self.processor, cast(Inbox, None))

    async def begin(self) -> Process:
        """Take what is free."""
        await self.leases.round()
        if self.leases.held:
            await self.feed.assignment()
        return self

    async def settle_assignment(self) -> None:
        """Open what was taken and close what was lost."""
        while True:
            if self.feed.owned != frozenset(self.leases.held):
                await self.feed.assignment()
            elif self.leases._changed.is_set():
                await self.leases.changed()
            else:
                return

    async def step(self) -> bool:
        """One batch, if there is one."""
        batch = await self.feed.next()
        if batch is not None:
            await self.processor.handle(batch.entries)
        return batch is not None

    async def run(self) -> Process:
        """Until nothing comes any more and everything is committed."""
        idle = 0
        for _ in range(500):
            idle = 0 if await self.step() else idle + 1
            await self.processor.settle()
            valid = all(part.valid for part in self.processor.parts.values())
            if idle >= 2 and valid:
                await self.processor.drain()
                return self
        raise AssertionError("it does not come to rest")


class World:
    """A log, a Redis, one process, and what was published."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.log = FaultyLog(partitions)
        self.bus = FakeBus()
        self.me = Process(self.log, self.bus)

    def publish(self, *said: Command | bytes, partition: int = 0) -> None:
        for one in said:
            raw = one if isinstance(one, bytes) else encode_command(one)
            if isinstance(one, Command):
                partition = partition_of(one.root, self.partitions)
            self.bus.add(commands_key(partition), raw)

    async def events(self, partition: int = 0) -> list[Event]:
        stored = await MemoryLog.read(self.log, partition, 0, 10**6)
        return [decode_event(one.message) for one in stored]

    async def numbers(self, partition: int = 0) -> list[int]:
        """What was added, in order."""
        return [e.data["number"] for e in await self.events(partition) if e.type == "Added"]

    async def whole(self) -> None:
        """I1, I2, I6, I11: positions, versions, chain and mirror."""
        for partition in range(self.partitions):
            events = await self.events(partition)
            assert [event.position for event in events] == list(range(1, len(events) + 1))
            versions: dict[str, int] = {}
            for event in events:
                step = 0 if event.type == REFUSAL else 1
                assert event.version == versions.get(event.subject, 0) + step
                versions[event.subject] = event.version
            assert (await verify(self.log, partition)).ok

    async def mirrored(self, partition: int = 0) -> bool:
        """I11: the mirror is the log."""
        stored = await MemoryLog.read(self.log, partition, 0, 10**6)
        return self.bus.messages(events_key(partition)) == [one.message for one in stored]

    def outcomes(self) -> list[Outcome]:
        return [decode_outcome(raw) for raw in self.bus.messages("replies:me")]


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never holds")


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
    answered = {outcome.command_id for outcome in world.outcomes()}
    assert answered == {c.id for c in said} - {said[place].id}


async def test_care_is_given_up_when_it_is_not_needed_any_more(world, monkeypatch):
    monkeypatch.setattr("processors.command_processor.ENTRIES_MAX", 8)
    world.publish(add(1, text=MARK), *[add(n) for n in range(2, 40)])
    await (await world.me.begin()).run()
    assert await world.numbers() == list(range(2, 40))
    assert world.me.processor.careful == {}


@pytest.mark.xfail(strict=True, reason="a careful partition that is idle keeps others unread")
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


@pytest.mark.xfail(strict=True, reason="it trims a new Redis by an id of the old one")
async def test_after_a_restart_of_redis_and_of_the_process_everything_new_is_read(world):
    world.publish(add(1))
    await (await world.me.begin()).run()
    await world.me.leases.stop()
    world.bus.flush(now_ms=5)
    world.publish(add(2))
    await (await Process(world.log, world.bus, "next").begin()).run()
    assert await world.numbers() == [1, 2]
    assert await world.mirrored(), "brought up when the partition was opened"


@pytest.mark.xfail(strict=True, reason="it trims a new Redis by an id of the old one")
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


async def crashing(me: Process, doing: Any) -> None:
    """Do something; where it raises, the agent has crashed and the feed is rewound."""
    try:
        await doing
    except (LogUnavailable, CommitUnknown):
        await me.feed.rewind()


async def save(me: Process) -> None:
    """Save a snapshot now, as the processor does when enough has happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processors.partition_state.SNAPSHOT_EVENTS", 1)
        patch.setattr("processors.partition_state.AGGREGATES_MAX", 1)
        await crashing(me, me.step())
        if me.processor._saving is not None:
            await me.processor._saving
