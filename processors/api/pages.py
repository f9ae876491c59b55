"""Pages of long lists: a bounded number of rows, and an opaque cursor to the next.

A cursor holds the place of the last row and a checksum over it and the filters: one that was
changed, or that belongs to another question, is refused. It grants nothing, since every page is
read with the tenant of whoever asks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from zlib import crc32

import orjson
from fastapi import Query

from processors.api.problems import Problem

LIMIT, LIMIT_MAX = 50, 500
CURSOR_CHARS_MAX = 1_000

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="At most so many items.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=CURSOR_CHARS_MAX,
        pattern="^[A-Za-z0-9_-]+$",
        description="Where to go on: `next` of the page before.",
    ),
]
Place = str | int | datetime


def page(
    items: Sequence[Any], limit: int, filters: Sequence[Any], place: Sequence[Any]
) -> dict[str, Any]:
    """A page of `items`, where one more than `limit` was asked for; `place` is the last one's."""
    more = len(items) > limit
    return {"items": items[:limit], "next": written(filters, place) if more else None}


def written(filters: Sequence[Any], place: Sequence[Place]) -> str:
    """The cursor of a place."""
    plain = [one.isoformat() if isinstance(one, datetime) else one for one in place]
    body = orjson.dumps([*plain, _sum(filters, plain)])
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def read(
    cursor: str | None, filters: Sequence[Any], kinds: Sequence[type[Place]]
) -> list[Any] | None:
    """The place that a cursor holds, one value of each kind; raises Problem. None without one."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        *place, checksum = orjson.loads(raw)
        if checksum == _sum(filters, place) and len(place) == len(kinds):
            return [_as(kind, value) for kind, value in zip(kinds, place, strict=True)]
    except (binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        pass
    detail = "The cursor is not one of ours, or of another question; begin without one."
    raise Problem("INVALID_CURSOR", detail, parameter="cursor")


def _as(kind: type[Place], value: Any) -> Place:
    if kind is datetime and isinstance(value, str):
        return datetime.fromisoformat(value)
    if type(value) is kind:
        return value
    raise TypeError(kind)


def _sum(filters: Sequence[Any], place: Sequence[Any]) -> int:
    return crc32(orjson.dumps([list(filters), list(place)], default=str))
