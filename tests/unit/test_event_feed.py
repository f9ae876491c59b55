"""What is committed beside a reader is handled at once, in order, and never past what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from processors.commands import pause_execution
from processors.event_feed import EventFeed
from processors.hand_over import HandOver
from streams.codec import encode_event
from streams.message import Event
from tests.fake_bus import FakeBus

COMMAND = pause_execution("e-1")


class Collector:
    """A reader that notes the positions that it gets; `go` lets it."""

    partitions = 2

    def __init__(self) -> None:
        self.positions = {1: 0, 2: 0}
        self.handled: list[list[tuple[int, int]]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None

    async def handle(self, entries: Mapping[int, Sequence[Event]]) -> None:
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.handled.append([(e.partition, e.position) for es in entries.values() for e in es])
        for partition, events in entries.items():
            self.positions[partition] = events[-1].position


class Beside:
    """A feed that owns both partitions, and what is committed beside it."""

    def __init__(self) -> None:
        self.heads = {1: 0, 2: 0}
        self.collector = Collector()
        self.beside = HandOver(self.heads.get)
        reader: Any = self.collector
        unread: Any = None  # nothing here is to be read from the log
        self.feed = EventFeed("letters", reader, unread, FakeBus(), self.beside)  # type: ignore[arg-type]
        self.feed.owned, self.feed.started = frozenset({1, 2}), True
        self.feed.opened(1)
        self.feed.opened(2)

    def commit(self, *partitions: int) -> None:
        for partition in partitions:
            self.heads[partition] += 1
            at = self.heads[partition]
            message = encode_event(partition, at, "Done", COMMAND.subject, at, "t", COMMAND, {})
            self.beside.give(partition, at, [message])
        self.beside.given()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_commit_is_handled_without_anybody_reading():
    made = Beside()
    made.commit(1, 2)
    await turns(1)
    assert made.collector.handled == [[(1, 1), (2, 1)]]


async def test_what_is_committed_meanwhile_follows_in_one_batch():
    made = Beside()
    made.collector.go.clear()
    for _ in range(3):
        made.commit(1)
        await turns()
    made.collector.go.set()
    await turns()
    assert made.collector.handled == [[(1, 1)], [(1, 2), (1, 3)]]


async def test_nothing_is_handled_before_what_was_read_and_waits():
    """R33: in order within a partition, whichever way it comes."""
    made = Beside()
    made.feed._rewound = True  # nothing is taken at once, as while a partition is opened again
    made.commit(1)
    made.feed._rewound = False
    batch = await made.feed.next()
    assert batch is not None
    made.commit(1)
    await turns()
    assert made.collector.handled == []
    await made.collector.handle(batch.entries)
    following = await made.feed.next()
    assert following is not None
    assert [event.position for event in following.entries[1]] == [2]


async def test_of_a_partition_that_is_handed_over_nothing_is_taken():
    made = Beside()
    made.feed.owned = frozenset({2})
    made.commit(1)
    await turns()
    assert made.collector.handled == []


async def test_a_failure_comes_out_of_the_feed_and_nothing_is_taken_before():
    made = Beside()
    made.collector.failure = ValueError("a bug")
    made.commit(1)
    await turns()
    made.collector.failure = None
    made.commit(1)
    await turns()
    assert made.collector.handled == []
    with pytest.raises(ValueError, match="a bug"):
        await made.feed.next()
