"""The read model `tasks`: one row a task, from the moment it is scheduled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import orjson

from projections.projection import Projection, Statement, columns
from streams.message import Event

# A scheduled attempt begins its row anew; what the attempt before had said of errors stays. No
# agent begins before it was asked, whatever its clock says.
SCHEDULE = """
INSERT INTO tasks AS t (execution_id, task_id, tenant, agent_role, status, attempt, agent_id, phase,
    priority, scheduled_at, started_at, completed_at, error, output, prompt, compensation)
SELECT execution_id, task_id, tenant, role, status, attempt, agent, phase, priority,
    scheduled::timestamptz,
    CASE WHEN started IS NOT NULL THEN greatest(started::timestamptz, scheduled::timestamptz) END,
    completed::timestamptz, error, output::json, prompt::json, compensation
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::int[],
            $15::int[], $16::text[])
    AS s(execution_id, task_id, tenant, status, attempt, agent, started, completed, error, output,
         prompt, compensation, role, phase, priority, scheduled)
ON CONFLICT (execution_id, task_id) DO UPDATE
SET status = excluded.status, attempt = excluded.attempt, agent_id = excluded.agent_id,
    scheduled_at = excluded.scheduled_at, started_at = excluded.started_at,
    completed_at = excluded.completed_at, error = coalesce(excluded.error, t.error),
    output = excluded.output, prompt = excluded.prompt, compensation = excluded.compensation
"""

# The row is there, yet this too is an upsert: it finds rows by their key under any plan, while an
# UPDATE that was planned when the table was small went on to read all of it for every batch. What
# stands for the columns that are NOT NULL is never written.
CHANGE = """
INSERT INTO tasks AS t (execution_id, task_id, tenant, agent_role, status, attempt, agent_id, phase,
    priority, scheduled_at, started_at, completed_at, error, output, prompt, compensation)
SELECT execution_id, task_id, tenant, '', status, attempt, agent, 0, 0, '-infinity',
    started::timestamptz, completed::timestamptz, error, output::json, prompt::json, compensation
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[])
    AS c(execution_id, task_id, tenant, status, attempt, agent, started, completed, error, output,
         prompt, compensation)
ON CONFLICT (execution_id, task_id) DO UPDATE
SET status = coalesce(nullif(excluded.status, ''), t.status),
    attempt = greatest(excluded.attempt, t.attempt),
    agent_id = coalesce(excluded.agent_id, t.agent_id),
    started_at = CASE WHEN excluded.started_at IS NULL THEN t.started_at
                      ELSE greatest(excluded.started_at, t.scheduled_at) END,
    completed_at = coalesce(excluded.completed_at, t.completed_at),
    error = coalesce(excluded.error, t.error), output = coalesce(excluded.output, t.output),
    prompt = coalesce(excluded.prompt, t.prompt),
    compensation = coalesce(excluded.compensation, t.compensation)
"""


@dataclass(slots=True)
class Row:
    """What a batch says of one task; field order is the statements'."""

    execution_id: str
    task_id: str
    tenant: str
    status: str = ""
    attempt: int = 0
    agent: str | None = None
    started: str | None = None
    completed: str | None = None
    error: str | None = None
    output: str | None = None
    prompt: str | None = None
    compensation: str | None = None
    role: str | None = None
    phase: int = 0
    priority: int = 0
    scheduled: str | None = None


COMPENSATION = {
    "CompensationScheduled": "scheduled",
    "CompensationFailed": "scheduled",
    "TaskCompensated": "compensated",
    "CompensationParked": "parked",
}

CHANGED_COLUMNS = 12
VALUES = attrgetter(*Row.__slots__)
CHANGED_VALUES = attrgetter(*Row.__slots__[:CHANGED_COLUMNS])


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    rows: dict[tuple[str, str], Row] = {}
    for event in events:
        if event.type == "ExecutionRetried":
            for task in event.data["tasks"]:
                row = _row(rows, event, task)
                row.status = "pending"
        else:
            _fold(_row(rows, event, event.data["task"]), event)
    begun = [VALUES(row) for row in rows.values() if row.scheduled is not None]
    others = [CHANGED_VALUES(row) for row in rows.values() if row.scheduled is None]
    statements = [(SCHEDULE, columns(begun))] if begun else []
    return [*statements, (CHANGE, columns(others))] if others else statements


def _row(rows: dict[tuple[str, str], Row], event: Event, task: str) -> Row:
    row = rows.get((event.root, task))
    if row is None:
        row = rows[event.root, task] = Row(event.root, task, event.tenant)
    return row


def _fold(row: Row, event: Event) -> None:
    data = event.data
    if undone := COMPENSATION.get(event.type):
        row.compensation = undone
        row.error = data.get("error", row.error)
        return
    row.attempt = data["attempt"]
    match event.type:
        case "TaskScheduled":
            row.status, row.scheduled = "scheduled", event.time
            row.role, row.phase, row.priority = data["role"], data["phase"], data["priority"]
            row.agent = row.started = row.completed = row.output = row.prompt = None
        case "TaskStarted":
            row.status, row.agent = "running", data["agent"]
            row.started = began(data.get("started_at"), event.time)
        case "TaskTakenOver":
            row.status, row.agent = "running", data["agent"]
        case "TaskCompleted":
            row.status, row.agent, row.completed = "completed", data["agent"], event.time
            if data["output"] is not None:
                row.output = orjson.dumps(data["output"]).decode()
        case "TaskFailed":
            row.status = "pending" if data["retried"] else "failed"
            row.agent, row.completed, row.error = data["agent"], event.time, data["error"]
        case "TaskTimedOut":
            row.status = "pending" if data["retried"] else "timed_out"
            row.agent, row.completed, row.error = data["agent"], event.time, data["reason"]
        case "InputRequested":
            row.status, row.agent = "waiting", data["agent"]
            row.prompt = orjson.dumps(data["prompt"]).decode()
        case "InputProvided":
            row.status = "pending"
        case "TaskCancelled":
            row.status, row.completed = "cancelled", event.time


def began(said: Any, recorded: str) -> str:
    """When the agent says that it began, if that is a time and not in our future; else when we
    heard of it. It comes from outside, and what is no time would stop the read model.
    """
    try:
        when = datetime.fromisoformat(said)
        known = datetime.fromisoformat(recorded)
        # In UTC, since PostgreSQL knows no offset of 16 hours, or of half a second.
        return when.astimezone(UTC).isoformat() if when <= known else recorded
    except (OverflowError, TypeError, ValueError):  # no text, no time, or one without an offset
        return recorded


TASKS = Projection(
    name="tasks",
    version=1,
    tables=("tasks",),
    types=frozenset(
        {
            "TaskScheduled",
            "TaskStarted",
            "TaskTakenOver",
            "TaskCompleted",
            "TaskFailed",
            "TaskTimedOut",
            "TaskCancelled",
            "InputRequested",
            "InputProvided",
            "ExecutionRetried",
            *COMPENSATION,
        }
    ),
    apply=apply,
)
