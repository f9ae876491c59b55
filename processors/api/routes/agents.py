"""Agents: who can be asked, and whether they get work."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from aggregates.problem import DETAIL_CHARS_MAX
from processors import commands
from processors.api import shapes, shown
from processors.api.answers import json, row_shown, tagged
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT, TEXT_CHARS_MAX, AgentId
from processors.api.problems import Problem
from processors.api.reading import Reading
from processors.api.requests import JsonRoute
from processors.api.sending import IfMatch, Sending
from projections.agents import AGENTS

COLUMNS = """agent_id, name, roles, capabilities, capacity, cost, region, status, circuit, lost,
    reason, registered_at, updated_at"""

LIST = f"""
SELECT {COLUMNS} FROM agents
WHERE tenant = $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR $3 = ANY(roles))
  AND ($4::text IS NULL OR agent_id > $4)
ORDER BY agent_id LIMIT $5
"""  # noqa: S608
"""A page of agents, by id."""

SHOW = f"""
SELECT {COLUMNS}, (
    SELECT (e.message ->> 'version')::bigint FROM histories AS h
    JOIN cursors AS c ON c.consumer = $3 AND c.partition = h.partition
    JOIN LATERAL (
        SELECT message FROM events
        WHERE partition = h.partition AND subject = h.subject
          AND position BETWEEN h.first_position AND least(h.last_position, c.position)
        ORDER BY position DESC LIMIT 1
    ) AS e ON true
    WHERE h.subject = 'agent/' || agent_id
) AS at_version
FROM agents WHERE tenant = $1 AND agent_id = $2
"""  # noqa: S608
"""One agent, and the version of it that the row shows."""

router = APIRouter(prefix="/api/v1/agents", tags=["agents"], route_class=JsonRoute)


@router.get("", response_model=shown.Page[shown.Agent])
async def list_agents(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Literal["active", "draining", "deregistered"] | None = None,
    role: Annotated[str | None, Query(max_length=TEXT_CHARS_MAX, pattern=TEXT)] = None,
) -> Response:
    """The agents that were ever registered, by id."""
    filters = ("agents", status, role)
    [after] = read(cursor, filters, (str,)) or [None]
    rows = await reading.rows(LIST, status, role, after, limit + 1)
    items = [row_shown(row) for row in rows]
    last = [items[limit - 1]["agent_id"]] if len(items) > limit else []
    return json(page(items, limit, filters, last))


@router.get("/{agent_id}", response_model=shown.Agent)
async def get_agent(agent_id: AgentId, reading: Reading) -> Response:
    """One agent; its ETag is for If-Match."""
    row = await reading.row(SHOW, agent_id, AGENTS.consumer)
    if row is None:
        raise Problem("UNKNOWN_AGENT", f"There is no agent {agent_id}.")
    body = row_shown(row)
    return tagged(body, body.pop("at_version"))


@router.put("/{agent_id}", response_model=shown.AgentOutcome)
async def register(
    agent_id: AgentId, body: shapes.Registration, sending: Sending, if_match: IfMatch = None
) -> Response:
    """Make an agent known, or change what is known of it."""
    command = commands.register_agent(
        agent_id,
        name=body.name,
        roles=body.roles,
        capabilities=body.capabilities,
        capacity=body.capacity,
        card=body.card,
        cost=body.cost,
        region=body.region,
    )
    return await sending.send(command, if_match=if_match, about={"agent_id": agent_id})


@router.post("/{agent_id}/drain", response_model=shown.AgentOutcome)
async def drain(
    agent_id: AgentId,
    sending: Sending,
    because: shapes.Because | None = None,
    if_match: IfMatch = None,
) -> Response:
    """Give an agent nothing new; what it has may finish."""
    command = commands.drain_agent(agent_id, because.reason if because else "")
    return await sending.send(command, if_match=if_match, about={"agent_id": agent_id})


@router.delete("/{agent_id}", response_model=shown.AgentOutcome)
async def deregister(
    agent_id: AgentId,
    sending: Sending,
    reason: Annotated[str, Query(max_length=DETAIL_CHARS_MAX, pattern=TEXT)] = "",
    if_match: IfMatch = None,
) -> Response:
    """Forget an agent; what it has done stays in the history."""
    command = commands.deregister_agent(agent_id, reason)
    return await sending.send(command, if_match=if_match, about={"agent_id": agent_id})
