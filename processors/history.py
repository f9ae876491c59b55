"""Reading stored events back, one aggregate, one partition or all; the table is the truth."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from aggregates.execution import EXECUTION
from aggregates.execution_state import Execution
from processors.blueprints import Blueprints, attach
from processors.vocabulary import Vocabulary
from projections.histories import HISTORIES
from streams.codec import decode_event
from streams.ending import end
from streams.message import Event
from streams.partition import partition_of

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

PAGE_EVENTS = 8_000  # in one query, of all its partitions together
PARTITION_EVENTS_MIN = 250  # of each of them
PAGE_BYTES = 16 * 1024 * 1024  # likewise; what is read further on is one event a partition

HEADS = """
SELECT partition, position FROM cursors WHERE consumer = 'commands' AND partition = ANY($1::int[])
"""
"""How far the partitions reach."""

_WANTED = "($4::text IS NULL OR subject = $4) AND ($5::text[] IS NULL OR type = ANY($5))"

_EVENTS = f"""
SELECT e.partition, e.position, e.message
FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS span(partition, after, head)
CROSS JOIN LATERAL (
    SELECT partition, position, message FROM (
        SELECT partition, position, message,
            sum(octet_length(message::text)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING)
                - octet_length(message::text) AS before
        FROM events
        WHERE partition = span.partition AND position > span.after AND position <= span.head
          AND {_WANTED}
        ORDER BY position LIMIT $6
    ) AS page WHERE before < $7
) AS e
"""  # noqa: S608
EVENTS = _EVENTS + "ORDER BY e.message->>'time', e.partition, e.position"
"""The next events of some partitions, each between two positions."""

EVENTS_OF_ONE = _EVENTS + "ORDER BY e.position"
"""The same of one partition: its order is that of its time, and no message needs to be read."""

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


REFERRING = frozenset(
    kind.__name__ for kind in EXECUTION.events if any(f.name == "_blueprint" for f in fields(kind))
)
"""The events that name the workflow that an execution follows."""

_Reading = asyncio.Task[tuple[list[Row], dict[int, int]]]


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

    async def pages(self) -> AsyncGenerator[list[Row], None]:
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
        """The events after what was read, up to the given positions.

        While a page is worked on, the next one is on its way.
        """
        behind = {p: after for p, after in self.after.items() if after < heads[p]}
        reading = self._read(behind, heads)
        try:
            while reading is not None:
                page, reached = await reading
                behind = {p: after for p, after in reached.items() if after < heads[p]}
                reading = self._read(behind, heads)
                self.after |= reached
                if page:
                    yield page
        finally:
            if reading is not None:
                await end(reading)

    def _read(self, behind: dict[int, int], heads: dict[int, int]) -> _Reading | None:
        """The next page of these partitions, as a task; None where nothing is behind."""
        return asyncio.create_task(self._page(behind, heads)) if behind else None

    async def _page(
        self, behind: dict[int, int], heads: dict[int, int]
    ) -> tuple[list[Row], dict[int, int]]:
        """A page, and how far each of its partitions was read with it."""
        count = max(PARTITION_EVENTS_MIN, PAGE_EVENTS // len(behind))
        size = max(1, PAGE_BYTES // len(behind))  # at least the next event of each
        found = await self.log.pool.fetch(
            EVENTS_OF_ONE if len(behind) == 1 else EVENTS,
            list(behind),
            list(behind.values()),
            [heads[partition] for partition in behind],
            self._subject,
            self._types,
            count,
            size,
        )
        page = list(map(Row._make, found))
        counts, sizes, reached = Counter[int](), Counter[int](), dict(behind)
        if len(behind) == 1:  # the usual case, in which nothing has to be told apart
            [partition] = behind
            counts[partition], sizes[partition] = len(page), sum(len(row[2]) for row in page)
            reached[partition] = page[-1].position if page else 0
        else:
            for partition, position, message in page:
                counts[partition] += 1
                sizes[partition] += len(message)
                reached[partition] = max(reached[partition], position)
        full = {p for p in behind if counts[p] == count or sizes[p] >= size}
        return page, {p: at if p in full else heads[p] for p, at in reached.items()}

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
    typed, evolve = names.event, EXECUTION.evolve
    async with aclosing(history.pages()) as pages:
        async for page in pages:
            for row in page:
                event = decode_event(row.message)
                if not includes(event):
                    return
                fact = typed(event)
                if fact is not None:
                    if event.type in REFERRING:
                        reference = EXECUTION.reference(fact)
                        attach(EXECUTION, fact, await plans.find([reference] if reference else []))
                    state = evolve(state, fact)
                yield event, state
