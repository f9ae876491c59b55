"""Reading a partition's events in order without a hole: from the mirror, else from the table.

Ids in the mirror are positions, so a reader at `x` that gets anything but `x+1` knows that it is
missing something (trimmed, flushed, late) and reads the table until it has caught up.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from streams.bus import BLOCK_MS_MAX, Bus, BusUnavailable, id_parts
from streams.log import READ_EVENTS_MAX, WRITER, Log
from streams.partition import events_key

READ_ENTRIES_MAX = 1_000

logger = structlog.get_logger(__name__)


class Tail:
    """One reader's view of the log's tail; counts how often it had to go to the table."""

    def __init__(self, log: Log, bus: Bus) -> None:
        self.log = log
        self.bus = bus
        self.gaps = 0
        self._behind: set[int] = set()
        self._quiet = True  # at the beginning nobody knows whether the mirror is whole

    async def read(
        self, positions: Mapping[int, int], block_ms: int = BLOCK_MS_MAX
    ) -> dict[int, list[bytes]]:
        """The next events of each partition after its position, waiting a while for the first.

        Returns {} when nothing came. Raises LogUnavailable when the table is needed and away.
        """
        if self._quiet or self._behind & positions.keys():
            found = await self._from_table(await self._lagging(positions))
            self._quiet = False
            if found:
                return found
        by_key = {events_key(p): p for p in positions}
        after = {key: f"{positions[p]}-0" for key, p in by_key.items()}
        try:
            streams = await self.bus.read(after, READ_ENTRIES_MAX, block_ms)
        except BusUnavailable as error:
            logger.warning("mirror_unavailable", error=str(error))
            return await self._from_table(positions)
        # Nothing came: either nothing happened, or the mirror lost it; the table knows.
        self._quiet = not streams
        events: dict[int, list[bytes]] = {}
        for key, entries in streams.items():
            partition = by_key[key]
            first = positions[partition] + 1
            whole = [
                message
                for expected, (entry, message) in enumerate(entries, first)
                if id_parts(entry)[0] == expected
            ]
            if len(whole) < len(entries):
                self.gaps += 1
                self._behind.add(partition)
                # Only an unbroken beginning is of use; the rest comes from the table.
                unbroken = 0
                for expected, (entry, _) in enumerate(entries, first):
                    if id_parts(entry)[0] != expected:
                        break
                    unbroken += 1
                whole = whole[:unbroken]
            if whole:
                events[partition] = whole
        return events

    async def _lagging(self, positions: Mapping[int, int]) -> dict[int, int]:
        """The partitions to read from the table, after their positions."""
        if not self._quiet:
            return {p: positions[p] for p in self._behind & positions.keys()}
        heads = {cursor.partition: cursor.position for cursor in await self.log.cursors(WRITER)}
        return {p: at for p, at in positions.items() if heads[p] > at or p in self._behind}

    async def _from_table(self, positions: Mapping[int, int]) -> dict[int, list[bytes]]:
        events = {}
        for partition, position in positions.items():
            stored = await self.log.read(partition, position, READ_EVENTS_MAX)
            if len(stored) < READ_EVENTS_MAX:
                self._behind.discard(partition)
            if stored:
                events[partition] = [event.message for event in stored]
        return events
