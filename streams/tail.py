"""Reading a partition's events in order without a hole: from the mirror, else from the table.

Ids in the mirror are positions, so a reader at `x` that gets anything but `x+1` knows that it is
missing something (trimmed, flushed, late) and reads the table until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from streams.bus import BLOCK_MS_MAX, Bus, BusUnavailable, id_parts
from streams.log import READ_EVENTS_MAX, WRITER, Log
from streams.partition import events_key

READ_ENTRIES_MAX = 1_000
LOOK_S = 2.0  # how long a partition whose mirror lost its end may wait beside a busy one
PAUSE_S = 0.2  # between two looks while there is no mirror, only the table

logger = structlog.get_logger(__name__)


class Tail:
    """One reader's view of the log's tail; counts how often it had to go to the table."""

    def __init__(self, log: Log, bus: Bus, clock: Callable[[], float] | None = None) -> None:
        self.log = log
        self.bus = bus
        self.gaps = 0
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._behind: set[int] = set()
        self._quiet = True  # at the beginning nobody knows whether the mirror is whole
        self._looked = 0.0
        self._looked_at: dict[int, int] = {}
        self._turns = 0
        self._served: dict[int, int] = {}  # in which turn a partition was last read from the table

    async def read(
        self, positions: Mapping[int, int], block_ms: int = BLOCK_MS_MAX
    ) -> dict[int, list[bytes]]:
        """The next events of each partition after its position, waiting a while for the first.

        Returns {} when nothing came. Raises LogUnavailable when the table is needed and away.
        """
        lagging = await self._lagging(positions)
        self._quiet = False
        if lagging and (found := await self._from_table(lagging)):
            return found
        by_key = {events_key(p): p for p in positions}
        after = {key: f"{positions[p]}-0" for key, p in by_key.items()}
        try:
            streams = await self.bus.read(after, READ_ENTRIES_MAX, block_ms)
        except BusUnavailable as error:
            logger.warning("mirror_unavailable", error=str(error))
            self._quiet = True  # the next look is at the table
            await asyncio.sleep(min(block_ms / 1_000, PAUSE_S))
            return {}
        # Nothing came: either nothing happened, or the mirror lost it; the table knows.
        self._quiet = not streams
        events: dict[int, list[bytes]] = {}
        for key, entries in streams.items():
            partition = by_key[key]
            whole = _unbroken(entries, positions[partition] + 1)
            if len(whole) < len(entries):
                self.gaps += 1
                self._behind.add(partition)
            if whole:
                events[partition] = whole
        return events

    async def _lagging(self, positions: Mapping[int, int]) -> dict[int, int]:
        """The partitions to read from the table, after their positions.

        After a gap those that had it; in a quiet moment, and now and then while others are busy,
        those that stand still although their head has moved.
        """
        behind = self._behind & positions.keys()
        now = self._clock()
        if not self._quiet and now - self._looked < LOOK_S:
            return {p: positions[p] for p in behind}
        heads = {cursor.partition: cursor.position for cursor in await self.log.cursors(WRITER)}
        still = {
            p
            for p, at in positions.items()
            if heads[p] > at and (self._quiet or self._looked_at.get(p) == at)
        }
        self._looked, self._looked_at = now, dict(positions)
        return {p: positions[p] for p in still | behind}

    async def _from_table(self, positions: Mapping[int, int]) -> dict[int, list[bytes]]:
        """At most READ_EVENTS_MAX events in all: what is handled at once must stay small.

        Whoever was served last comes last, so that a long history keeps nobody waiting.
        """
        events, left = {}, READ_EVENTS_MAX
        for partition in sorted(positions, key=lambda p: self._served.get(p, 0)):
            if not left:
                self._behind.add(partition)
                continue
            stored = await self.log.read(partition, positions[partition], left)
            if len(stored) < left:
                self._behind.discard(partition)
            else:
                self._behind.add(partition)  # there is more, and the mirror need not have it
            if stored:
                events[partition] = [event.message for event in stored]
                self._turns += 1
                self._served[partition] = self._turns
                left -= len(stored)
        return events


def _unbroken(entries: Sequence[tuple[str, bytes]], first: int) -> list[bytes]:
    """The messages up to the first gap; what comes after it is read from the table."""
    messages: list[bytes] = []
    for expected, (entry, message) in enumerate(entries, first):
        if id_parts(entry)[0] != expected:
            break
        messages.append(message)
    return messages
