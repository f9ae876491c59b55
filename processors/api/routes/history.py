"""An execution's past and its reasons: its events, its state at a moment, why it stands still."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.access.roles import Read
from processors.api import shown
from processors.api.answers import json
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT_CHARS_MAX, ExecutionId, Time
from processors.api.payloads import opened_events
from processors.api.problems import Problem
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from processors.api.routes.executions import existing, unknown_execution
from processors.api.trouble import busy
from processors.explain import gather
from processors.explain.findings import findings
from processors.history import History, Row
from processors.moments import Moment, Unheard, state_at
from streams.partition import partition_of

POSITION_MAX = 2**63 - 1
TYPES_MAX = 50
FOLDS_MAX = 2  # at once: they compute, in the loop that serves everybody
EXPLANATIONS_MAX = 16  # at once: each looks twice, seconds apart

_folding = asyncio.Semaphore(FOLDS_MAX)
_explaining = asyncio.Semaphore(EXPLANATIONS_MAX)

Type = Annotated[str, Query(max_length=TEXT_CHARS_MAX, pattern="^[A-Za-z0-9]+$")]
After = Annotated[int, Query(ge=0, le=POSITION_MAX, description="Only what follows this position.")]

router = APIRouter(prefix="/api/v1/executions", tags=["executions"], route_class=JsonRoute)


@router.get("/{execution_id}/events", response_model=shown.Page[shown.EventShown])
async def list_events(
    execution_id: ExecutionId,
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    type: Annotated[list[Type], Query(max_length=TYPES_MAX)] = [],  # noqa: A002, B006
    after: After = 0,
) -> Response:
    """What has happened to an execution, in order, as it was stored (CloudEvents)."""
    filters = ("events", execution_id, type, after)
    [place] = read(cursor, filters, (int,)) or [after]
    await existing(reading, execution_id)
    gateway = reading.gateway
    partition = partition_of(execution_id, gateway.partitions)
    history = History(gateway.log, {partition: place}, f"execution/{execution_id}", type)
    rows: list[Row] = []
    async with gateway.bounded():
        async for found in history.pages():
            rows += found[: limit + 1 - len(rows)]
            if len(rows) > limit:
                break
    items = await opened_events(reading, f"execution/{execution_id}", rows[:limit])
    items += rows[limit:]  # one more than is shown says that there are more
    last = [rows[limit - 1].position] if len(rows) > limit else []
    return json(page(items, limit, filters, last))


@router.get("/{execution_id}/state", response_model=shown.StateShown)
async def get_state(
    execution_id: ExecutionId,
    reading: Reading,
    position: Annotated[
        int | None, Query(ge=1, le=POSITION_MAX, description="Up to this position.")
    ] = None,
    time: Annotated[Time | None, Query(description="Up to this time.")] = None,
) -> Response:
    """An execution's state now, at a position or at a time, folded from its events."""
    if position is not None and time is not None:
        raise Problem("INVALID_VALUE", "Give a position or a time, not both.", parameter="time")
    await existing(reading, execution_id)
    async with _folding, reading.gateway.bounded():
        try:
            state = await state_at(reading.gateway.log, execution_id, Moment(position, time))
        except Unheard as error:
            raise Problem("NOT_FOUND", str(error)) from None
    return json(state)


@router.get("/{execution_id}/explain", response_model=shown.Explanation)
async def explain(execution_id: ExecutionId, reading: Reading) -> Response:
    """Why an execution is where it is, and what would help; takes about two seconds."""
    await existing(reading, execution_id)
    if _explaining.locked():
        raise busy(f"{EXPLANATIONS_MAX} explanations are under way")
    gateway = reading.gateway
    async with _explaining, gateway.bounded():
        try:
            facts = await gather.gather(
                gateway.log,
                gateway.bus,
                execution_id,
                datetime.now(UTC),
                engine=gateway.unbound,
            )
        except gather.Unheard:
            raise unknown_execution(execution_id) from None
    if (see := await reading.payloads(f"execution/{execution_id}")) is not None:
        await gather.opened(facts, see)
    elif not reading.who.may(Read.PAYLOADS):
        gather.withheld(facts)
    found: list[dict[str, Any]] = [one._asdict() for one in findings(facts)]
    return json(asdict(facts) | {"findings": found})
