"""Faust's consumer: a reader for each feed that an agent subscribes to, and who owns what."""

# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from faust.transport.consumer import Consumer as BaseConsumer
from faust.types import TP
from mode import Service

from streams.transport.reader import Reader


class Consumer(BaseConsumer):
    """Starts and stops the readers, and tells Faust of partitions won and lost."""

    mundane_level = "debug"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._readers: dict[str, Reader] = {}
        self._assigned: set[TP] = set()
        self._one_change_at_a_time = asyncio.Lock()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Read these topics too; their partitions are announced later, in the readers' own tasks.

        Never from here: Faust's way to take partitions waits until it has subscribed.
        """
        for topic in sorted(set(topics) - self._readers.keys()):
            feed = self.app.feeds.get(topic)
            if feed is None:
                raise LookupError(f"topic {topic} has no feed; there are {[*self.app.feeds]}")
            if (agents := len(self.app.topics.channels(topic))) > 1:
                # A crash of one would rewind the feed under the others.
                raise ValueError(f"topic {topic} has {agents} agents; a feed is read by one")
            self._readers[topic] = Reader(feed, self)
            await self._readers[topic].start()

    async def announce(self, topic: str, owned: frozenset[int]) -> None:
        """Tell Faust which partitions of a topic are now owned; it hears only of differences."""
        async with self._one_change_at_a_time:
            before = self._assigned
            after = {TP(topic, partition) for partition in owned}
            after |= {tp for tp in before if tp.topic != topic}
            if before == after:
                return
            self._assigned = after
            try:
                if revoked := before - after:
                    await self._on_partitions_revoked(revoked)
                await self._on_partitions_assigned(after, self.app.consumer_generation_id)
            except BaseException:
                self._assigned = before  # so that the reader's next attempt says it again
                raise

    async def halt(self) -> None:
        """Read nothing more; the feeds keep their leases until this service stops."""
        await asyncio.gather(*(reader.halt() for reader in self._readers.values()))

    async def drop(self, topics: Iterable[str]) -> None:
        """Stop reading these topics, and forget what their crashed agent had not taken yet."""
        for topic in self._readers.keys() & set(topics):
            await self._readers[topic].drop()

    def rewind(self, topics: Iterable[str]) -> None:
        """Read these topics again from their durable positions, for an agent that begins anew."""
        for topic in self._readers.keys() & set(topics):
            self._readers[topic].rewind()

    async def on_stop(self) -> None:
        """Stop the feeds; the agents have stopped before."""
        stops = (reader.stop() for reader in self._readers.values())
        for failed in await asyncio.gather(*stops, return_exceptions=True):
            if failed is not None:
                self.log.error("a feed did not stop as it should", exc_info=failed)
        self._readers.clear()
        self._assigned.clear()

    def assignment(self) -> set[TP]:
        """The partitions that Faust was told of."""
        return set(self._assigned)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions a topic has."""
        feed = self.app.feeds.get(topic)
        return None if feed is None else feed.partitions

    # Faust commits by counting consecutive offsets; a feed's durable positions are its cursors'.

    async def commit(self, *_: Any, **__: Any) -> bool:
        """Nothing to commit: a feed's position moves with what its agent recorded."""
        return False

    @Service.task
    async def _commit_handler(self) -> None:
        """Nothing to commit."""

    @Service.task
    async def _commit_livelock_detector(self) -> None:
        """Nothing to detect: no commit, no livelock."""

    async def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("Positions belong to the feeds: Faust neither seeks nor fetches.")

    _commit = _getmany = _seek = seek_to_committed = seek_wait = _refuse
    position = highwaters = earliest_offsets = create_topic = _refuse

    def _refuse_now(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("Positions belong to the feeds: Faust neither seeks nor fetches.")

    highwater = key_partition = _new_topicpartition = _to_message = _refuse_now
