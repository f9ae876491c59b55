"""One feed at work: what it owns is announced, what it reads is handed on, one message a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING, Any

from faust.types import TP, ConsumerMessage

from streams.ending import end
from streams.feed import Batch, Feed

if TYPE_CHECKING:
    from streams.transport.consumer import Consumer


Work = Callable[[], Awaitable[None]]


class Reader:
    """Reads a feed as fast as its agent takes the batches, until it is halted or the feed fails."""

    def __init__(self, feed: Feed, consumer: Consumer) -> None:
        self._feed = feed
        self._consumer = consumer
        self._app = consumer.app
        self._owned: frozenset[int] | None = None
        self._told = asyncio.Event()
        self._offsets: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the feed, and to read it."""
        await self._feed.start()
        self._begin(self._read)

    async def halt(self) -> None:
        """Read nothing more."""
        while tasks := [t for t in (*self._loops, self._task) if t is not None and not t.done()]:
            for task in tasks:
                await end(task)

    async def stop(self) -> None:
        """Read nothing more, and stop the feed."""
        await self.halt()
        await self._feed.stop()

    async def drop(self) -> None:
        """Read nothing more, and forget what waits in the agents' queues."""
        await self.halt()
        for channel in self._channels():
            channel.queue.clear()

    def rewind(self) -> None:
        """After `drop`: read again, from the durable positions."""
        self._begin(self._read_again)

    def _channels(self) -> tuple[Any, ...]:
        channels: tuple[Any, ...] = self._app.topics.channels(self._feed.topic)
        return channels

    def _begin(self, work: Work) -> None:
        name = f"reader of {self._feed.topic}"
        self._task = asyncio.create_task(self._guard(work), name=name)

    async def _read(self) -> None:
        # No TaskGroup: it cancels its tasks once, and one that misses that (see `end`) would be
        # waited for until the process is killed.
        self._loops = [asyncio.create_task(self._announce()), asyncio.create_task(self._pump())]
        await asyncio.wait(self._loops, return_when=asyncio.FIRST_EXCEPTION)
        errors = [t.exception() for t in self._loops if t.done() and not t.cancelled()]
        for loop in self._loops:
            await end(loop)
        for error in errors:
            if error is not None:
                raise error

    async def _read_again(self) -> None:
        await self._feed.rewind()
        await self._read()

    async def _guard(self, work: Work) -> None:
        try:
            await work()
        except Exception as failed:
            # One way for every failure: it comes out of the agent's `async for`, the agent crashes,
            # and its supervisor begins both again.
            for channel in self._channels():
                await channel.throw(failed)
            if not self._channels():
                await self._app.crash(failed)

    async def _announce(self) -> None:
        while True:
            if self._owned is not None:  # said again after a failure in the middle of saying it
                await self._consumer.announce(self._feed.topic, self._owned)
                self._told.set()
            self._owned = await self._feed.assignment()
            self._told.clear()

    async def _pump(self) -> None:
        while True:
            for channel in self._channels():
                await _room(channel.queue)
            batch = await self._feed.next()
            if batch is None:
                await asyncio.sleep(0)  # a feed that waits for nothing must not stop the loop
                continue
            if not self._told.is_set():
                await self._told.wait()
            await self._consumer.callback(self._message(batch))  # waits where a queue is full

    def _message(self, batch: Batch) -> Any:
        partition = batch.partitions[0]
        offset = self._offsets[partition] = self._offsets.get(partition, -1) + 1
        return ConsumerMessage(
            self._feed.topic,
            partition,
            offset,
            timestamp=time(),
            timestamp_type=0,
            headers=None,
            key=None,
            value=batch,
            checksum=None,
            tp=TP(self._feed.topic, partition),
            generation_id=self._app.consumer_generation_id,  # without it, silently skipped
        )


async def _room(queue: Any) -> None:
    """Wait until a queue is not full: what is read before would be a batch of its own behind the
    one that waits there, and what is read then is one larger batch.
    """
    while queue.full():
        taken = asyncio.get_running_loop().create_future()
        queue._putters.append(taken)  # as its own `put` waits, but with nothing in hand
        try:
            await taken
        finally:
            if taken in queue._putters:
                queue._putters.remove(taken)
