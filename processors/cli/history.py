"""Reading stored events back, one aggregate, one partition or all; the table is the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processors.cli import sql
from projections.histories import HISTORIES

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

PAGE_EVENTS = 1_000  # of one partition in one query


class Row(NamedTuple):
    """One stored event."""

    partition: int
    position: int
    message: bytes


class History:
    """What is wanted of the log; `after` says for each partition how far it was read."""

    def __init__(
        self,
        log: PostgresLog,
        after: dict[int, int],
        subject: str | None = None,
        types: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.after = after
        self._subject = subject
        self._types = list(types) or None

    async def newest(self, count: int) -> list[Row]:
        """The newest events, oldest first; what comes after them is left for `pages`."""
        heads = await self._heads()
        rows = await self.log.pool.fetch(
            sql.NEWEST, list(heads), list(heads.values()), self._subject, self._types, count
        )
        self.after |= heads
        return [Row(*row) for row in rows][-count:] if count else []

    async def pages(self) -> AsyncIterator[list[Row]]:
        """What is there now, in order within each partition."""
        heads = await self._heads()
        if self._subject is not None:
            [partition] = self.after
            known, last = await self._span(self._subject, partition)
            async for page in self._between({partition: last}):
                yield page
            # Between its last event and what the read model knows, there is none of it.
            self.after[partition] = max(self.after[partition], known)
        async for page in self._between(heads):
            yield page

    async def _span(self, subject: str, partition: int) -> tuple[int, int]:
        """Up to where the read model knows about an aggregate, and its last event until there.

        Moves on to its first event.
        """
        row = await self.log.pool.fetchrow(sql.SPAN, subject, HISTORIES.consumer, partition)
        if row is None:
            return 0, 0  # no projector has ever been here
        first, last, known = row
        if first is None:
            return int(known), 0
        self.after[partition] = max(self.after[partition], first - 1)
        return int(known), int(last)

    async def _between(self, heads: dict[int, int]) -> AsyncIterator[list[Row]]:
        """The events after what was read, up to the given positions."""
        behind = {p: after for p, after in self.after.items() if after < heads[p]}
        while behind:
            rows = await self.log.pool.fetch(
                sql.EVENTS,
                list(behind),
                list(behind.values()),
                [heads[partition] for partition in behind],
                self._subject,
                self._types,
                PAGE_EVENTS,
            )
            counts = dict.fromkeys(behind, 0)
            for partition, position, _ in rows:
                counts[partition] += 1
                self.after[partition] = max(self.after[partition], position)
            for partition, count in counts.items():
                if count < PAGE_EVENTS:
                    self.after[partition] = heads[partition]
                    del behind[partition]
                else:
                    behind[partition] = self.after[partition]
            if rows:
                yield [Row(*row) for row in rows]

    async def _heads(self) -> dict[int, int]:
        """How far each wanted partition reaches; read before the events, so that none is missed."""
        rows = await self.log.pool.fetch(sql.HEADS, list(self.after))
        return dict.fromkeys(self.after, 0) | {row[0]: row[1] for row in rows}
