"""Answers: JSON from rows, with the versions and positions that later requests can name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import asyncpg
import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/json"
POSITION = "X-Position"
OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


def json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Anything that orjson writes, as a response."""
    return Response(orjson.dumps(body, default=_other, option=OPTIONS), status, headers, MEDIA_TYPE)


def tagged(body: Mapping[str, Any], version: int | None) -> Response:
    """A resource with its version as ETag."""
    headers = None if version is None else {"ETag": f'"{version}"'}
    return json(body, 200, headers)


def row_shown(row: asyncpg.Record, raw: Iterable[str] = ()) -> dict[str, Any]:
    """A row as an object; the columns in `raw` hold JSON already."""
    fields: dict[str, Any] = dict(row)
    for name in raw:
        if fields[name] is not None:
            fields[name] = orjson.Fragment(fields[name])
    return fields


def _other(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
