"""Dead letters: what could not be handled, and what is to become of it."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.api import shapes, shown
from processors.api.answers import json, row_shown
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT, TEXT_CHARS_MAX, Before, LetterId, Since
from processors.api.problems import Problem
from processors.api.reading import Reader, Reading
from processors.api.requests import JsonRoute
from processors.api.sending import Sending
from processors.commands import command
from streams.log import RAW_BYTES_MAX

COLUMNS = """dead_letter_id, kind, subject, source, entry, reason, raw_bytes, time, status, tries,
    decided_by, decided_why, decided_at"""
SEEN = "(tenant = $1 OR ($2::boolean AND tenant IS NULL))"
"""What nobody can be named for is seen by who may see everything."""

LIST = f"""
SELECT {COLUMNS} FROM dead_letters
WHERE {SEEN} AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR kind = $4)
  AND ($5::text IS NULL OR subject = $5)
  AND ($6::timestamptz IS NULL OR time >= $6) AND ($7::timestamptz IS NULL OR time < $7)
  AND ($8::timestamptz IS NULL OR (time, dead_letter_id) > ($8, $9::text))
ORDER BY time, dead_letter_id LIMIT $10
"""  # noqa: S608
"""A page of letters, the oldest first."""

SHOW = f"SELECT {COLUMNS}, raw FROM dead_letters WHERE {SEEN} AND dead_letter_id = $3"  # noqa: S608
"""One letter with its bytes."""

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], route_class=JsonRoute)


@router.get("", response_model=shown.Page[shown.Letter])
async def list_letters(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Literal["open", "retried", "discarded"] | None = None,
    kind: Literal["command", "event", "task", "hook"] | None = None,
    subject: Annotated[str | None, Query(max_length=TEXT_CHARS_MAX, pattern=TEXT)] = None,
    since: Since = None,
    before: Before = None,
) -> Response:
    """Dead letters, the oldest first."""
    filters = ("dead letters", status, kind, subject, since, before)
    place = read(cursor, filters, (datetime, str)) or [None, None]
    everywhere = reading.who.everywhere
    rows = await reading.rows(
        LIST, everywhere, status, kind, subject, since, before, *place, limit + 1
    )
    last = rows[limit - 1] if len(rows) > limit else None
    place = [last["time"], last["dead_letter_id"]] if last else []
    return json(page([row_shown(row) for row in rows], limit, filters, place))


@router.get("/{letter}", response_model=shown.WholeLetter)
async def get_letter(letter: LetterId, reading: Reading) -> Response:
    """One dead letter with its bytes, in base64."""
    found: dict[str, Any] = row_shown(await _letter(reading, letter))
    raw = found.pop("raw")
    if (see := await reading.payloads(f"dead_letter/{letter}")) is not None:
        raw = await see.letter(letter, raw)
    return json(found | {"raw": b64encode(raw).decode(), "raw_kept": len(raw)})


@router.post("/{letter}/retry", response_model=shown.LetterOutcome)
async def retry_letter(
    letter: LetterId, body: shapes.Decision, reading: Reading, sending: Sending
) -> Response:
    """Try it again; said twice, also without a key, it is done once."""
    found = await _letter(reading, letter)
    if found["raw_bytes"] > RAW_BYTES_MAX:
        raise Problem("TRUNCATED", "Not all of its bytes were kept, so it can only be discarded.")
    data: dict[str, Any] = {"reason": body.reason}
    if not sending.key_given:
        data["attempt"] = found["tries"] + 1
    return await sending.send(
        command("dead_letter", letter, "RetryDeadLetter", data), about={"dead_letter_id": letter}
    )


@router.post("/{letter}/discard", response_model=shown.LetterOutcome)
async def discard_letter(
    letter: LetterId, body: shapes.Decision, reading: Reading, sending: Sending
) -> Response:
    """Let it be; it stays in the list, and is never tried again."""
    await _letter(reading, letter)
    data = {"reason": body.reason}
    return await sending.send(
        command("dead_letter", letter, "DiscardDeadLetter", data), about={"dead_letter_id": letter}
    )


async def _letter(reading: Reader, letter: str) -> asyncpg.Record:
    found = await reading.row(SHOW, reading.who.everywhere, letter)
    if found is None:
        raise Problem("UNKNOWN_DEAD_LETTER", f"There is no dead letter {letter}.")
    return found
