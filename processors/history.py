"""Reading stored events back, one aggregate, one partition or all; the table is the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aggregates.execution import EXECUTION
from aggregates.execution_state import Execution
from processors.blueprints import Blueprints, attach
from processors.vocabulary import Vocabulary
from projections.histories import HISTORIES
from streams.codec import decode_event
from streams.message import Event
from streams.partition import partition_of

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

PAGE_EVENTS = 1_000  # of one partition in one query

HEADS = """
SELECT partition, position FROM cursors WHERE consumer = 'commands' AND partition = ANY($1::int[])
"""
"""How far the partitions reach."""

_WANTED = "($4::text IS NULL OR subject = $4) AND ($5::text[] IS NULL OR type = ANY($5))"

EVENTS = f"""
SELECT e.partition, e.position, e.message
FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS span(partition, after, head)
CROSS JOIN LATERAL (
    SELECT partition, position, message FROM events
    WHERE partition = span.partition AND position > span.after AND position <= span.head
      AND {_WANTED}
    ORDER BY position LIMIT $6
) AS e
ORDER BY e.message->>'time', e.partition, e.position
"""  # noqa: S608
"""The next events of some partitions, each between two positions."""

NEWEST = """
SELECT e.partition, e.position, e.message
FROM unnest($1::int[], $2::bigint[]) AS span(partition, head)
CROSS JOIN LATERAL (
    SELECT partition, position, message FROM events
    WHERE partition = span.partition AND position <= span.head
      AND ($3::text IS NULL OR subject = $3) AND ($4::text[] IS NULL OR type = ANY($4))
    ORDER BY position DESC LIMIT $5
) AS e
ORDER BY e.message->>'time', e.partition, e.position
"""
"""The newest events of some partitions."""

SPAN = """
SELECT h.first_position, h.last_position, c.position
FROM cursors AS c LEFT JOIN histories AS h ON h.subject = $1 AND h.partition = c.partition
WHERE c.consumer = $2 AND c.partition = $3
"""
"""Where an aggregate's events lie, and up to which position that is known."""


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
            NEWEST, list(heads), list(heads.values()), self._subject, self._types, count
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
        row = await self.log.pool.fetchrow(SPAN, subject, HISTORIES.consumer, partition)
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
                EVENTS,
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
        rows = await self.log.pool.fetch(HEADS, list(self.after))
        return dict.fromkeys(self.after, 0) | {row[0]: row[1] for row in rows}


async def folded(
    log: PostgresLog, execution: str, includes: Callable[[Event], bool] = lambda event: True
) -> AsyncIterator[tuple[Event, Execution]]:
    """Each event of an execution up to the first one that is not included, and the state after it.

    It is one state, changed in place; refusals change nothing.
    """
    partition = partition_of(execution, await log.partitions())
    history = History(log, {partition: 0}, f"{EXECUTION.name}/{execution}")
    names, plans = Vocabulary(), Blueprints(log)
    state = EXECUTION.initial(execution)
    async for page in history.pages():
        for row in page:
            event = decode_event(row.message)
            if not includes(event):
                return
            typed = names.event(event)
            if typed is not None:
                if reference := EXECUTION.reference(typed):
                    attach(EXECUTION, typed, await plans.find([reference]))
                state = EXECUTION.evolve(state, typed)
            yield event, state
