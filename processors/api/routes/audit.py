"""The audit trail: what was commanded of an aggregate, and who looked at payloads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import json, row_shown
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT, TEXT_CHARS_MAX
from processors.api.reading import Reading
from processors.api.requests import JsonRoute

COMMANDS = """
SELECT time, actor, subject, type, type <> 'CommandRejected' AS allowed, version, partition,
       position, causation_id, correlation_id,
       CASE WHEN type = 'CommandRejected' THEN data END AS problem
FROM audit_of_commands
WHERE tenant = $1 AND subject = $2 AND ($3::bigint IS NULL OR position < $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::bool IS NULL OR (type <> 'CommandRejected') = $5)
ORDER BY position DESC LIMIT $6
"""
"""What happened to an aggregate and was refused it, the newest first."""

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
    subject: Subject,
    limit: Limit = 50,
    cursor: Cursor = None,
    actor: Actor = None,
    allowed: Allowed = None,
) -> Response:
    """Who did what to one aggregate and when, allowed or refused; the newest first."""
    filters = ("audit", subject, actor, allowed)
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
