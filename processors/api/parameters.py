"""The parameters that many routes share, with their bounds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

ID_CHARS_MAX = 128
ID = rf"^[!-.0-~]{{1,{ID_CHARS_MAX}}}$"
"""Visible ASCII without a slash: what a path carries unharmed."""
TEXT_CHARS_MAX = 200
TEXT = r"^[^\x00-\x1f\x7f]*$"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 1, 1, tzinfo=UTC)
"""What PostgreSQL and Python agree on in every time zone."""

WorkflowId = Annotated[str, Path(pattern=ID, max_length=ID_CHARS_MAX)]
ExecutionId = Annotated[str, Path(pattern=ID, max_length=ID_CHARS_MAX)]
AgentId = Annotated[str, Path(pattern=ID, max_length=ID_CHARS_MAX)]
LetterId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def _written(time: Any) -> Any:
    """A number would be taken for the seconds since 1970."""
    if isinstance(time, str) and not DATE.match(time):
        raise ValueError("write a time such as 2026-01-31T12:00:00Z")
    return time


def _within(time: datetime) -> datetime:
    if time.year < EARLIEST.year:
        return EARLIEST
    return LATEST if time.year >= LATEST.year else time


Time = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_within)]
Since = Annotated[Time | None, Query(description="Only from this time on (with its time zone).")]
Before = Annotated[Time | None, Query(description="Only before this time (with its time zone).")]
