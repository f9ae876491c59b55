"""The read model `agents`: one row an agent that was ever registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from projections.projection import Projection, Statement, columns
from streams.message import Event

STATUS = {
    "AgentRegistered": "active",
    "AgentDrained": "draining",
    "AgentDeregistered": "deregistered",
}

REGISTER = """
INSERT INTO agents (agent_id, tenant, name, roles, capabilities, capacity, status, registered_at,
    updated_at)
SELECT id, tenant, name, ARRAY(SELECT json_array_elements_text(roles::json)),
    ARRAY(SELECT json_array_elements_text(capabilities::json)), capacity, status,
    first::timestamptz, last::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[],
            $8::text[], $9::text[])
    AS s(id, status, last, tenant, name, capacity, roles, capabilities, first)
ON CONFLICT (agent_id) DO UPDATE
SET name = excluded.name, roles = excluded.roles, capabilities = excluded.capabilities,
    capacity = excluded.capacity, status = excluded.status, updated_at = excluded.updated_at
"""

CHANGE = """
UPDATE agents AS a SET status = c.status, updated_at = c.time::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[]) AS c(id, status, time) WHERE a.agent_id = c.id
"""
CHANGED_COLUMNS = 3


@dataclass(slots=True)
class Row:
    """What a batch says of one agent."""

    registered: Event | None = None
    first: Event | None = None
    last: Event | None = None


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    rows: dict[str, Row] = {}
    for event in events:
        row = rows.setdefault(event.root, Row())
        if event.type == "AgentRegistered":
            row.registered = event
            row.first = row.first or event
        row.last = event
    begun = [_values(root, row) for root, row in rows.items() if row.registered is not None]
    others = [
        _values(root, row)[:CHANGED_COLUMNS] for root, row in rows.items() if row.registered is None
    ]
    statements = [(REGISTER, columns(begun))] if begun else []
    return [*statements, (CHANGE, columns(others))] if others else statements


def _values(root: str, row: Row) -> tuple[Any, ...]:
    assert row.last is not None
    values = (root, STATUS[row.last.type], row.last.time)
    if row.registered is None or row.first is None:
        return values
    data = row.registered.data
    return (
        *values,
        row.first.tenant,
        data["name"],
        data["capacity"],
        orjson.dumps(data["roles"]).decode(),
        orjson.dumps(data["capabilities"]).decode(),
        row.first.time,
    )


AGENTS = Projection(
    name="agents", version=1, tables=("agents",), types=frozenset(STATUS), apply=apply
)
