"""What is stored of what a follower wants: page after page, up to where the live events begin.

Everything comes from the log's table; the read models only say where in it to look, and what they
do not know yet is looked for in the log itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from processors.following.belonging import Fetch
from processors.following.heard import Heard, hear
from processors.following.wanted import Wanted
from projections.executions import EXECUTIONS
from projections.histories import HISTORIES
from projections.workflows import WORKFLOWS
from streams.partition import partition_of

PAGE_EVENTS = 500
PAGE_BYTES = 4 * 1024 * 1024  # as stored, so perhaps compressed; one event at least
WINDOW_POSITIONS = 20_000  # one statement looks at so many; it takes some 20 ms
PAGES_AT_ONCE = 4  # of all followers of a process: who catches up may not starve the reads

KNOWN = """
SELECT tenant FROM (
    SELECT tenant FROM {table} WHERE {id} = $1
    UNION ALL
    SELECT e.message->>'tenant' FROM events AS e
    WHERE e.partition = $2 AND e.subject = '{kind}/' || $1 AND e.type = $4
      AND e.position > coalesce(
          (SELECT position FROM cursors WHERE consumer = $3 AND partition = $2), 0)
) AS found WHERE tenant = $5 LIMIT 1
"""
"""Whether a tenant has something of this name; the log knows what no read model has yet."""

SPAN = """
SELECT min(h.first_position), max(h.last_position), (
    SELECT position FROM cursors WHERE consumer = $1 AND partition = $2)
FROM histories AS h WHERE h.partition = $2 AND h.subject = ANY($3)
"""
"""Between which positions all known events of some aggregates are, and what is known."""

WORKFLOW_SPAN = """
SELECT least(min(x.first_position), min(h.first_position)), $4::bigint, (
    SELECT CASE count(*) WHEN 2 THEN min(position) ELSE 0 END
    FROM cursors WHERE consumer = ANY($1) AND partition = $2)
FROM (SELECT $3::text AS id) AS w
LEFT JOIN executions AS x ON x.workflow_id = w.id AND x.partition = $2
LEFT JOIN histories AS h ON h.subject = 'workflow/' || w.id AND h.partition = $2
"""

PAGE = f"""
SELECT position, CASE WHEN before < {PAGE_BYTES} THEN message END FROM (
    SELECT position, message,
        sum(pg_column_size(message)) OVER (ORDER BY position) - pg_column_size(message) AS before
    FROM events
    WHERE partition = $1 AND position > $2 AND position <= $3 AND {{wanted}}
    ORDER BY position LIMIT {PAGE_EVENTS}
) AS page
"""  # noqa: S608

_TYPES = "($4::text[] IS NULL OR type = ANY($4))"

PAGE_OF_ALL = PAGE.format(wanted=_TYPES)
PAGE_OF_SUBJECTS = PAGE.format(wanted=f"{_TYPES} AND subject = ANY($5::text[])")
PAGE_OF_WORKFLOW = f"""
WITH mine AS MATERIALIZED (
    SELECT 'execution/' || execution_id AS subject FROM executions
    WHERE workflow_id = $5 AND partition = $1 AND first_position <= $3
    UNION
    SELECT subject FROM events
    WHERE partition = $1 AND position > $6 AND position <= $3 AND type = 'ExecutionStarted'
      AND message->'data'->>'workflow_id' = $5
    UNION SELECT 'workflow/' || $5
) {PAGE.format(wanted=f"{_TYPES} AND subject IN (SELECT subject FROM mine)")}
"""  # noqa: S608


class Span(NamedTuple):
    """Known events lie from `first` to `last`; after `known` anything may be."""

    first: int
    last: int
    known: int


class Stored:
    """Reads of one process; `fetch` asks on behalf of the follower."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(PAGES_AT_ONCE)

    async def events(
        self, fetch: Fetch, wanted: Wanted, after: dict[int, int], goal: dict[int, int]
    ) -> AsyncIterator[list[Heard]]:
        """What is wanted after some positions up to others, in order within each partition.

        `after` moves along, before each page (perhaps an empty one) is handed out.
        """
        for partition, end in goal.items():
            if after[partition] >= end:
                continue
            span = await self._span(fetch, wanted, partition, end)
            for begin, stop in ((span.first - 1, min(span.last, span.known)), (span.known, end)):
                after[partition] = max(after[partition], min(begin, end))
                while after[partition] < min(stop, end):
                    limit = min(stop, end)
                    yield await self._page(fetch, wanted, partition, after, limit, span)

    async def _span(self, fetch: Fetch, wanted: Wanted, partition: int, end: int) -> Span:
        if wanted.subjects:
            subjects = list(wanted.subjects)
            rows = await fetch(SPAN, HISTORIES.consumer, partition, subjects)
        elif wanted.workflow is not None:
            readers = [EXECUTIONS.consumer, HISTORIES.consumer]
            rows = await fetch(WORKFLOW_SPAN, readers, partition, wanted.workflow, end)
        else:
            return Span(1, end, end)
        first, last, known = rows[0]
        known = known or 0
        return Span(known + 1, known, known) if first is None else Span(first, last, known)

    async def _page(
        self,
        fetch: Fetch,
        wanted: Wanted,
        partition: int,
        after: dict[int, int],
        end: int,
        span: Span,
    ) -> list[Heard]:
        begin = after[partition]
        stop = min(begin + WINDOW_POSITIONS, end)
        types = list(wanted.types) or None
        async with self._turns:
            if wanted.subjects:
                subjects = list(wanted.subjects)
                rows = await fetch(PAGE_OF_SUBJECTS, partition, begin, stop, types, subjects)
            elif wanted.workflow is not None:
                rows = await fetch(
                    PAGE_OF_WORKFLOW, partition, begin, stop, types, wanted.workflow, span.known
                )
            else:
                rows = await fetch(PAGE_OF_ALL, partition, begin, stop, types)
        whole = [row for row in rows if row[1] is not None]
        events = [hear(row[1].encode() if isinstance(row[1], str) else row[1]) for row in whole]
        if wanted.workflow is not None:
            for event in events:
                event.workflow = wanted.workflow
        cut = len(whole) < len(rows) or len(rows) == PAGE_EVENTS
        after[partition] = whole[-1][0] if cut else stop
        return [event for event in events if wanted.takes(event)]


OWN = {
    "execution": (EXECUTIONS.consumer, "ExecutionStarted"),
    "workflow": (WORKFLOWS.consumer, "WorkflowCreated"),
}
"""Who keeps the read model of a kind, and the event that something of it begins with."""


async def belongs(fetch: Fetch, kind: str, root: str, tenant: str, partitions: int) -> bool:
    """Whether a tenant has this execution or workflow."""
    consumer, began = OWN[kind]
    statement = KNOWN.format(table=f"{kind}s", id=f"{kind}_id", kind=kind)
    place = partition_of(root, partitions)
    return bool(await fetch(statement, root, place, consumer, began, tenant))
