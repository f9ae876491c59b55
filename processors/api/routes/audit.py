"""The audit trail: what was commanded, and who looked at payloads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import json, row_shown
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT, TEXT_CHARS_MAX
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from streams.log import WRITER

COMMANDS = """
SELECT time, actor, origin, subject, type, type <> 'CommandRejected' AS allowed, version, partition,
       position, causation_id, correlation_id,
       CASE WHEN type = 'CommandRejected' THEN data END AS problem
FROM audit_of_commands
WHERE tenant = $1 AND subject = $2 AND ($3::bigint IS NULL OR position < $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::bool IS NULL OR (type <> 'CommandRejected') = $5)
ORDER BY position DESC LIMIT $6
"""
"""What happened to an aggregate and was refused it, the newest first."""

NEWEST = """
SELECT (e.message ->> 'time')::timestamptz AS time, e.message ->> 'actor' AS actor,
       e.message ->> 'origin' AS origin, e.subject, e.type,
       e.type <> 'CommandRejected' AS allowed, (e.message ->> 'version')::bigint AS version,
       e.partition, e.position, e.message ->> 'causationid' AS causation_id,
       e.message ->> 'correlationid' AS correlation_id,
       CASE WHEN e.type = 'CommandRejected' THEN e.message -> 'data' END AS problem
FROM cursors AS head CROSS JOIN LATERAL (
    SELECT * FROM events
    WHERE partition = head.partition
      AND position <= head.position AND position > head.position - $7
      AND ($6::bool IS NULL OR (type <> 'CommandRejected') = $6)
      AND message ->> 'tenant' = $1 AND ($5::text IS NULL OR message ->> 'actor' = $5)
      AND ($2::timestamptz IS NULL
           OR ((message ->> 'time')::timestamptz, partition, position) < ($2, $3, $4))
    ORDER BY position DESC LIMIT $8
) AS e
WHERE head.consumer = $9
ORDER BY 1 DESC, e.partition DESC, e.position DESC LIMIT $8
"""
"""The newest of all aggregates; the log has no index for that, so not all of it is looked at."""

LOOKED_AT = 10_000  # of each partition's newest events

READS = """
SELECT number, time, actor, origin, action, subject, via, payloads, allowed, detail
FROM audit_reads
WHERE tenant = $1 AND ($2::text IS NULL OR subject = $2) AND ($3::bigint IS NULL OR number < $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::bool IS NULL OR allowed = $5)
ORDER BY number DESC LIMIT $6
"""
"""Who looked at payloads or was refused that, the newest first."""

Subject = Annotated[
    str, Query(max_length=TEXT_CHARS_MAX, pattern=TEXT, description="An aggregate: execution/ID.")
]
Actor = Annotated[str | None, Query(max_length=TEXT_CHARS_MAX, pattern=TEXT)]
Allowed = Annotated[bool | None, Query(description="Only what was allowed, or what was refused.")]

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=JsonRoute)


@router.get("", response_model=shown.Page[shown.AuditEntry])
async def list_audit(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    subject: Subject | None = None,
    actor: Actor = None,
    allowed: Allowed = None,
) -> Response:
    """Who did what, when and from where, allowed or refused; the newest first.

    Without `subject` as far back as the newest 10,000 events of each partition.
    """
    filters = ("audit", subject, actor, allowed)
    if subject is None:
        since = read(cursor, filters, (datetime, int, int)) or [None, None, None]
        more = (LOOKED_AT, limit + 1, WRITER)
        rows = await reading.rows(NEWEST, *since, actor, allowed, *more)
        items = [row_shown(row, ("problem",)) for row in rows]
        at = rows[limit - 1] if len(rows) > limit else None
        place = [at["time"], at["partition"], at["position"]] if at else []
        return json(page(items, limit, filters, place))
    [before] = read(cursor, filters, (int,)) or [None]
    rows = await reading.rows(COMMANDS, subject, before, actor, allowed, limit + 1)
    items = [row_shown(row, ("problem",)) for row in rows]
    last = [rows[limit - 1]["position"]] if len(rows) > limit else []
    return json(page(items, limit, filters, last))


@router.get("/reads", response_model=shown.Page[shown.AuditRead])
async def list_reads(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    subject: Subject | None = None,
    actor: Actor = None,
    allowed: Allowed = None,
) -> Response:
    """Who looked at sealed payloads, when and from where, allowed or refused; the newest first."""
    filters = ("reads", subject, actor, allowed)
    [before] = read(cursor, filters, (int,)) or [None]
    rows = await reading.rows(READS, subject, before, actor, allowed, limit + 1)
    items = [row_shown(row) for row in rows]
    last = [rows[limit - 1]["number"]] if len(rows) > limit else []
    return json(page(items, limit, filters, last))
