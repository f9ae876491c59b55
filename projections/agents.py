"""The read model `agents`: one row an agent that was ever registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from projections.projection import Projection, Statement, columns
from streams.message import Event

REGISTER = """
INSERT INTO agents (agent_id, tenant, name, roles, capabilities, capacity, cost, region, status,
    registered_at, updated_at)
SELECT id, tenant, name, ARRAY(SELECT json_array_elements_text(roles::json)),
    ARRAY(SELECT json_array_elements_text(capabilities::json)), capacity, cost, region, 'active',
    first::timestamptz, first::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::float8[],
            $8::text[], $9::text[])
    AS s(id, tenant, name, roles, capabilities, capacity, cost, region, first)
ON CONFLICT (agent_id) DO UPDATE
SET name = excluded.name, roles = excluded.roles, capabilities = excluded.capabilities,
    capacity = excluded.capacity, cost = excluded.cost, region = excluded.region
"""

CHANGE = """
UPDATE agents AS a
SET status = coalesce(c.status, a.status), circuit = coalesce(c.circuit, a.circuit),
    lost = coalesce(c.lost, a.lost), reason = coalesce(c.reason, a.reason),
    updated_at = c.time::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::text[], $6::text[])
    AS c(id, status, circuit, lost, reason, time)
WHERE a.agent_id = c.id
"""


@dataclass(slots=True)
class Change:
    """What a batch changes in an agent's row; None where nothing."""

    status: str | None = None
    circuit: str | None = None
    lost: bool | None = None
    reason: str | None = None
    time: str = ""


CHANGES = {
    "AgentRegistered": Change(status="active", reason=""),
    "AgentDrained": Change(status="draining"),
    "AgentDeregistered": Change("deregistered", "closed", False),
    "CircuitOpened": Change(circuit="open"),
    "CircuitHalfOpened": Change(circuit="half_open"),
    "CircuitClosed": Change(circuit="closed"),
    "AgentLost": Change(lost=True),
    "AgentReturned": Change(lost=False, reason=""),
}
"""What each event changes; one that says why has its own reason."""


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    changes: dict[str, Change] = {}
    registered: dict[str, tuple[Event, Event]] = {}
    for event in events:
        if event.type == "AgentRegistered":
            registered[event.root] = (registered.get(event.root, (event,))[0], event)
        _note(changes.setdefault(event.root, Change()), event)
    rows = [_row(root, first, last) for root, (first, last) in registered.items()]
    told = [(r, c.status, c.circuit, c.lost, c.reason, c.time) for r, c in changes.items()]
    statements = [(REGISTER, columns(rows))] if rows else []
    return [*statements, (CHANGE, columns(told))]


def _note(so_far: Change, event: Event) -> None:
    now = CHANGES[event.type]
    so_far.status = now.status or so_far.status
    so_far.circuit = now.circuit or so_far.circuit
    so_far.lost = so_far.lost if now.lost is None else now.lost
    reason = event.data.get("reason", now.reason)
    so_far.reason = so_far.reason if reason is None else reason
    so_far.time = event.time


def _row(root: str, first: Event, last: Event) -> tuple[Any, ...]:
    data = last.data
    return (
        root,
        first.tenant,
        data["name"],
        orjson.dumps(data["roles"]).decode(),
        orjson.dumps(data["capabilities"]).decode(),
        data["capacity"],
        data.get("cost", 0.0),
        data.get("region"),
        first.time,
    )


AGENTS = Projection(
    name="agents", version=2, tables=("agents",), types=frozenset(CHANGES), apply=apply
)
