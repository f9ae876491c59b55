"""A log in memory with a failing mirror, a hub over it, followers that keep what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson

from processors.following.belonging import Belonging
from processors.following.follower import Follower
from processors.following.heard import Heard, hear
from processors.following.hub import Hub
from processors.following.places import read_place
from processors.following.stored import Stored
from processors.following.subscription import Ended, Subscription
from processors.following.wanted import Wanted
from streams.bus import Bus
from streams.log import WRITER, Share
from streams.logs.memory import MemoryLog
from tests.fake_bus import FakeBus
from tests.partitions import NOW

PARTITIONS = 2
TENANT = "t"
PAGE_EVENTS = 3


class World:
    """Some partitions, and what belongs to which workflow."""

    def __init__(self) -> None:
        self.log = MemoryLog(PARTITIONS)
        self.bus = FakeBus()
        self.lookups = 0
        self.workflows: dict[str, str] = {}
        self.hub = Hub(self.log, cast(Bus, self.bus), Belonging(self._fetch, lambda: PARTITIONS))
        self.stored = cast(Stored, StoredInMemory(self.log, self.workflows))
        self._mirrored = dict.fromkeys(range(PARTITIONS), 0)

    async def commit(self, partition: int, *said: tuple[str, str], mirror: bool = True) -> None:
        """Append events, (type, subject) each; `mirror` False leaves them to be read as stored."""
        cursor = (await self.log.cursors(WRITER))[partition]
        if cursor.owner is None:
            [cursor] = await self.log.take([cursor], "me")
        share = Share(partition, cursor.epoch, cursor.position, cursor.commits + 1, cursor.hash)
        share.types = [kind for kind, _ in said]
        share.subjects = [subject for _, subject in said]
        share.messages = [
            event(partition, cursor.position + n, kind, subject, self.workflows)
            for n, (kind, subject) in enumerate(said, 1)
        ]
        assert await self.log.append([share], NOW)
        if mirror:
            await self.mirror(partition)

    async def mirror(self, partition: int) -> None:
        """Bring the stream up to the head."""
        rows = await self.log.read(partition, self._mirrored[partition], 10**6)
        first = self._mirrored[partition] + 1
        await self.bus.mirror([(partition, first, [row.message for row in rows])])
        self._mirrored[partition] += len(rows)

    async def all(self, wanted: Wanted) -> list[bytes]:
        """What somebody wants of all that there is."""
        found = []
        for partition in range(PARTITIONS):
            rows = await self.log.read(partition, 0, 10**6)
            found += [settled(row.message, self.workflows) for row in rows]
        return [heard.raw for heard in found if wanted.takes(heard)]

    def ear(self, wanted: Wanted) -> Ear:
        """Somebody who will listen."""
        return Ear(self, wanted)

    async def _fetch(self, statement: str, executions: list[str], *_: Any) -> list[Any]:
        self.lookups += 1
        await asyncio.sleep(0)
        return [(one, self.workflows[one]) for one in executions if one in self.workflows]


class StoredInMemory:
    """The promise of `Stored`, kept over a log in memory."""

    def __init__(self, log: MemoryLog, workflows: dict[str, str]) -> None:
        self._log = log
        self._workflows = workflows

    async def events(
        self, _: Any, wanted: Wanted, after: dict[int, int], goal: dict[int, int]
    ) -> AsyncIterator[list[Heard]]:
        """Page after page."""
        for partition, end in goal.items():
            while after[partition] < end:
                await asyncio.sleep(0)
                count = min(PAGE_EVENTS, end - after[partition])
                rows = await self._log.read(partition, after[partition], count)
                after[partition] += len(rows)
                events = [settled(row.message, self._workflows) for row in rows]
                yield [one for one in events if wanted.takes(one)]


class Ear:
    """A follower that may stop and go on from its place."""

    def __init__(self, world: World, wanted: Wanted) -> None:
        self.world = world
        self.wanted = wanted
        self.heard: list[bytes] = []
        self.at: dict[int, int] | None = None
        self.subscription: Subscription | None = None
        self.why: str | None = None
        self.pause = 0
        """How often the loop turns between two events that it takes."""

    async def listen(self) -> None:
        """Follow from its place on, until it is ended or cancelled."""
        partitions = self.wanted.partitions(PARTITIONS)
        one = self.subscription = Subscription(self.wanted, partitions, self.at)
        follower = Follower(self.world.hub, self.world.stored, self._none, one)
        try:
            async for said in follower.said():
                if isinstance(said, str):
                    self.at = read_place(said, partitions)
                    continue
                for event in said:
                    for _ in range(self.pause):
                        await asyncio.sleep(0)
                    if one.ended.done():
                        raise Ended(one.ended.result())
                    self.heard.append(event.raw)
                    assert self.at is not None
                    self.at[event.partition] = event.position
        except Ended as ended:
            self.why = ended.why
        finally:
            follower.leave()

    async def _none(self, *_: Any) -> list[Any]:
        raise AssertionError("nothing is fetched here")


def event(
    partition: int, position: int, kind: str, subject: str, workflows: dict[str, str]
) -> bytes:
    """An event's bytes; an execution that begins belongs to the workflow named in its id."""
    data: dict[str, Any] = {"agent": "a"}
    if kind == "ExecutionStarted":
        execution = subject.removeprefix("execution/")
        workflows[execution] = data["workflow_id"] = execution.partition("-")[0]
    envelope = {"partition": partition, "position": position, "type": kind, "subject": subject}
    return orjson.dumps(envelope | {"tenant": TENANT, "data": data})


def settled(raw: bytes, workflows: dict[str, str]) -> Heard:
    """The event with its workflow."""
    heard = hear(raw)
    if heard.workflow is None:
        heard.workflow = workflows.get(heard.root, "")
    return heard
