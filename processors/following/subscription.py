"""One follower's side of the hub: a bounded queue, and why it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count

from processors.following.heard import Heard
from processors.following.wanted import Wanted

QUEUE_EVENTS_MAX = 1_000  # and as many again in the hand of the one who sends
QUEUE_BYTES_MAX = 4 * 1024 * 1024  # where events are large; the bytes are shared by all queues


class Ended(Exception):
    """The subscription is over; `why` is one of the reasons below."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


SLOW = "slow"
"""It did not take what it was sent in time."""
WENT_BACK = "went back"
"""The log has lost its end, as a database does that fails over; what was heard may not be so."""
CLOSING = "closing"
"""The process ends."""
BROKEN = "broken"
"""A mistake of ours; it is logged."""


_numbers = count()


class Subscription:
    """Events that the hub offers and one consumer takes."""

    def __init__(
        self, wanted: Wanted, partitions: Iterable[int], after: Mapping[int, int] | None = None
    ) -> None:
        self.number = next(_numbers)
        self.wanted = wanted
        self.partitions = frozenset(partitions)
        self.after = dict(after or {})
        """What it has from elsewhere: up to these positions the hub offers nothing."""
        self.catching_up = True
        self.overflowed = False
        self.sending_since: float | None = None
        """Since when its consumer waits for the other side; None while it does not."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue: deque[Heard] = deque()
        self._bytes = 0
        self._pulse = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether everything that was offered is taken."""
        return not self._queue

    @property
    def full(self) -> bool:
        """Whether more is waiting than may; the hub offers nothing to anybody meanwhile."""
        return len(self._queue) > QUEUE_EVENTS_MAX or (
            self._bytes > QUEUE_BYTES_MAX and len(self._queue) > 1
        )

    def offer(self, event: Heard) -> None:
        """One more event; one that still catches up gives its queue up where that is full."""
        if event.position <= self.after[event.partition] or self.overflowed or self.ended.done():
            return
        self._queue.append(event)
        self._bytes += len(event.raw)
        if self.catching_up and self.full:
            self.overflowed = True  # the table has all of it
            self.taken()
        self._wake()

    def pulse(self) -> None:
        """Have the consumer say where it is, when it has nothing else to do."""
        self._pulse = True
        self._wake()

    def pulsed(self) -> bool:
        """Whether that was asked for since the last time."""
        pulse, self._pulse = self._pulse, False
        return pulse

    def end(self, why: str) -> None:
        """Nothing more is offered; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(why)
            self._queue.clear()
            self._wake()

    async def take(self) -> list[Heard]:
        """What was offered, in order, or [] at a pulse; raises Ended."""
        while True:
            if self.ended.done():
                raise Ended(self.ended.result())
            if self._queue:
                return self.taken()
            if self.pulsed():
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def taken(self) -> list[Heard]:
        """Everything that was offered so far."""
        events = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        return events

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
