"""The one reader of a process: it follows the log's tail and hands every event to who wants it.

Clients never read Redis themselves: 9,000 that wait on one stream make an XADD take 183 ms. While
nobody listens, nothing is read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping

import structlog

from processors.following.belonging import Belonging
from processors.following.heard import Heard, hear
from processors.following.subscription import (
    BROKEN,
    CLOSING,
    SLOW,
    WENT_BACK,
    Subscription,
)
from streams.bus import Bus
from streams.ending import end
from streams.log import WRITER, Log, LogUnavailable
from streams.tail import Tail

BLOCK_MS = 1_000
PAUSE_S = 0.2  # between two tries while a server is away
HEADS_S = 5.0  # between two looks whether the log has gone back
YIELD_EVENTS = 100  # then others have their turn
ROOM_S_MAX = 2.0  # a consumer that neither sends nor takes for so long is stuck
HEARTBEAT_S = 15.0  # so often each follower says where it is; proxies drop what is silent
BEATS = 30  # they do so in so many groups, one after the other
SENDING_S_MAX = 20.0  # one message that takes longer to send is not being read


class Hub:
    """Subscriptions by what they want, and the loop that feeds them."""

    def __init__(self, log: Log, bus: Bus, belonging: Belonging) -> None:
        self.positions: dict[int, int] = {}
        """How far each partition was handed out."""
        self.heard = self.dropped = 0
        self._log = log
        self._tail = Tail(log, bus)
        self._belonging = belonging
        self._subscriptions: set[Subscription] = set()
        self._by_subject: dict[str, set[Subscription]] = defaultdict(set)
        self._by_workflow: dict[str, set[Subscription]] = defaultdict(set)
        self._others: set[Subscription] = set()
        self._starting = asyncio.Lock()
        self._looked = 0.0
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def gaps(self) -> int:
        """How often the mirror had a gap and the table was read."""
        return self._tail.gaps

    async def join(self, one: Subscription) -> dict[int, int]:
        """Offer what comes from now on; returns up to where that is not: the log has all of it.

        Raises LogUnavailable. A subscription that has overflowed may join again.
        """
        async with self._starting:
            if not self._subscriptions:
                heads = await self._log.cursors(WRITER)
                if not self._subscriptions:
                    self.positions = {c.partition: c.position for c in heads}
                    self._looked = asyncio.get_running_loop().time()
        # From here on without an await, so that nothing comes between the place and the joining.
        one.overflowed = False
        one.after = {p: max(one.after.get(p, 0), self.positions[p]) for p in one.partitions}
        self._subscriptions.add(one)
        for group in self._groups(one):
            group.add(one)
        if not self._tasks or self._tasks[0].done():
            self._tasks = (
                asyncio.create_task(self._follow(), name="hub follows"),
                asyncio.create_task(self._beat(), name="hub beats"),
            )
            for task in self._tasks:
                task.add_done_callback(self._ending.discard)
        return {p: self.positions[p] for p in one.partitions}

    def leave(self, one: Subscription) -> None:
        """Offer nothing more, and wait for it no longer; what it has not taken is forgotten."""
        one.taken()
        self._subscriptions.discard(one)
        self._others.discard(one)
        for groups, name in self._names(one):
            if group := groups.get(name):
                group.discard(one)
                if not group:
                    del groups[name]
        if not self._subscriptions:
            for task in self._tasks:
                task.cancel()
            self._ending.update(self._tasks)
            self._tasks = ()

    async def close(self) -> None:
        """End every subscription, and the loop."""
        self._end_all(CLOSING)
        for task in (*self._tasks, *self._ending):
            await end(task)  # each holds a connection until it has ended
        self._tasks = ()
        self._ending.clear()

    def _names(self, one: Subscription) -> Iterator[tuple[dict[str, set[Subscription]], str]]:
        wanted = one.wanted
        for subject in wanted.subjects:
            yield self._by_subject, subject
        if not wanted.subjects and wanted.workflow is not None:
            yield self._by_workflow, wanted.workflow

    def _groups(self, one: Subscription) -> list[set[Subscription]]:
        return [groups[name] for groups, name in self._names(one)] or [self._others]

    def _end_all(self, why: str) -> None:
        for one in list(self._subscriptions):
            one.end(why)
            self.leave(one)

    async def _follow(self) -> None:
        try:
            while self._is_mine():
                try:
                    await self._look_back()
                    found = await self._tail.read(self.positions, BLOCK_MS)
                except LogUnavailable as error:
                    logger.warning("following_unavailable", error=str(error))
                    await asyncio.sleep(PAUSE_S)
                    continue
                if self._is_mine():
                    await self._hand_out(found)
        except Exception:
            logger.exception("following_failed")
            self._end_all(BROKEN)

    def _is_mine(self) -> bool:
        """Whether this task is still the one: redis-py may swallow a cancellation."""
        return bool(self._tasks) and self._tasks[0] is asyncio.current_task()

    async def _look_back(self) -> None:
        """End all subscriptions where the log's end is before what they have heard."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < HEADS_S:
            return
        heads = {c.partition: c.position for c in await self._log.cursors(WRITER)}
        self._looked = now
        if any(heads[p] < at for p, at in self.positions.items()):
            logger.warning("log_went_back", followers=len(self._subscriptions))
            self._end_all(WENT_BACK)  # whoever joins next begins at the new heads

    async def _hand_out(self, found: Mapping[int, list[bytes]]) -> None:
        for partition, messages in found.items():
            events = [hear(raw) for raw in messages]
            for count, event in enumerate(events, 1):
                assert event.position == self.positions[partition] + 1, "positions are dense"
                while self._by_workflow and not self._belonging.settle(event):
                    await self._learn(events)
                # Whoever joins from now on has this event from the log.
                self.positions[partition] = event.position
                self.heard += 1
                wanting = self._wanting(event)
                for one in wanting:
                    one.offer(event)
                for one in wanting:
                    if one.full:
                        await self._press(one)
                if count % YIELD_EVENTS == 0:
                    await asyncio.sleep(0)

    def _wanting(self, event: Heard) -> list[Subscription]:
        groups = [self._others] if self._others else []
        if self._by_subject and (group := self._by_subject.get(f"{event.kind}/{event.root}")):
            groups.append(group)
        if event.workflow and (group := self._by_workflow.get(event.workflow)):
            groups.append(group)
        return [one for group in groups for one in group if one.wanted.takes(event)]

    async def _learn(self, events: list[Heard]) -> None:
        try:
            await self._belonging.learn(events)
        except LogUnavailable as error:
            logger.warning("following_unavailable", error=str(error))
            await asyncio.sleep(PAUSE_S)

    async def _press(self, one: Subscription) -> None:
        """A full queue: one that waits for its other side ends, one that we kept waiting is helped.

        The second is our own lack of time, so the whole hub slows down: the log keeps the rest.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + ROOM_S_MAX
        while one.full and not one.ended.done():
            if one.sending_since is not None or loop.time() > until:
                self._drop(one)
                return
            await asyncio.sleep(0)

    def _drop(self, one: Subscription) -> None:
        if not one.ended.done():
            self.dropped += 1
            one.end(SLOW)

    async def _beat(self) -> None:
        """Have each follower say where it is now and then; end those that cannot."""
        loop = asyncio.get_running_loop()
        group = 0
        while True:
            await asyncio.sleep(HEARTBEAT_S / BEATS)
            group = (group + 1) % BEATS
            for one in list(self._subscriptions):
                if one.number % BEATS == group:
                    since = one.sending_since
                    if since is not None and loop.time() - since > SENDING_S_MAX:
                        self._drop(one)
                    one.pulse()


logger = structlog.get_logger(__name__)
