"""After the commit: the events to their streams, the outcomes to whoever asked, in that order.

Redis may be away. Then nothing is lost: what was not mirrored is read from the table later, and
whoever waits for an outcome asks again with the same command id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from processors.decided import Decided
from processors.partition_state import PartitionState
from streams.bus import MIRROR_ENTRIES, Bus, BusUnavailable, id_parts
from streams.log import Log, LogUnavailable
from streams.partition import events_key

PAGE_EVENTS = 2_000

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Mirroring:
    """Keeps the mirror's order: one batch is on its way at a time, the next one waits for it."""

    log: Log
    bus: Bus
    mirrored: int = 0
    already_there: int = 0
    rebuilt: int = 0
    caught_up: int = 0
    failures: int = 0
    _under_way: asyncio.Task[None] | None = None

    async def publish(self, done: Sequence[Decided]) -> None:
        """Begin to send what was committed; returns when the batch before has gone out."""
        await self.settle()
        self._under_way = asyncio.create_task(self._send(done), name="mirror")

    async def settle(self) -> None:
        """Wait until what is on its way has gone out."""
        while (sending := self._under_way) is not None:
            try:
                await asyncio.shield(sending)
            finally:  # a bug that ended it is raised once; what was not sent is caught up with
                if sending.done() and self._under_way is sending:
                    self._under_way = None

    async def mend(self, parts: Sequence[PartitionState]) -> None:
        """Bring up what Redis has lost of partitions in which nothing is committed meanwhile.

        Where something is, its next commit does so.
        """
        await self.settle()
        self._under_way = asyncio.create_task(self._mend(parts), name="mirror")

    async def _mend(self, parts: Sequence[PartitionState]) -> None:
        try:
            newest = await self.bus.last_ids([events_key(part.partition) for part in parts])
            for part, last in zip(parts, newest, strict=True):
                if part.valid and id_parts(last)[0] < part.cursor.position:
                    await self.catch_up(part)
        except (BusUnavailable, LogUnavailable) as error:
            logger.warning("mirror_not_mended", error=str(error))

    async def _send(self, done: Sequence[Decided]) -> None:
        try:
            for one in done:
                if one.part.mirrored < one.share.head:
                    await self.catch_up(one.part, one.share.head)
            shares = [one.share for one in done if one.share.messages]
            calls = [(share.partition, share.head + 1, share.messages) for share in shares]
            for appended, there, afresh in await self.bus.mirror(calls):
                self.mirrored += appended
                self.already_there += there
                self.rebuilt += afresh
            for one in done:
                one.part.mirrored = one.share.last
            replies: dict[str, list[bytes]] = defaultdict(list)
            for one in done:
                for key, message in one.replies:
                    replies[key].append(message)
            if replies:
                await self.bus.append(replies)
        except (BusUnavailable, LogUnavailable) as error:
            self.failures += 1
            logger.warning("mirror_failed", error=str(error))

    async def catch_up(self, part: PartitionState, head: int | None = None) -> None:
        """Bring a partition's stream up to the head, from the table; raises BusUnavailable."""
        head = part.cursor.position if head is None else head
        key = events_key(part.partition)
        newest, _ = id_parts(await self.bus.last_id(key))
        if newest > head:  # nobody mirrors what is not committed: this is of another history
            logger.warning("mirror_ahead_of_the_log", partition=part.partition, by=newest - head)
            await self.bus.forget(key)
            self.rebuilt += 1
            newest = 0
        # From the last page on even where nothing seems missing: the script compares what is there
        # with the log and begins the stream afresh if it belongs to another history.
        position = max(0, min(newest, head) - 1, head - MIRROR_ENTRIES)
        while position < head:
            page = await self.log.read(part.partition, position, min(PAGE_EVENTS, head - position))
            messages = [stored.message for stored in page]
            [[appended, _, afresh]] = await self.bus.mirror(
                [(part.partition, position + 1, messages)]
            )
            self.caught_up += appended
            self.rebuilt += afresh
            position += len(page)
        part.mirrored = head
