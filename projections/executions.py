"""The read model `executions`: one row an execution, with its counts as of now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from projections.projection import Projection, Statement, columns
from streams.message import Event

STATUS = {
    "ExecutionPaused": "paused",
    "ExecutionResumed": "executing",
    "ExecutionCompleted": "completed",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}
ENDED = frozenset({"completed", "failed", "cancelled"})

START = """
INSERT INTO executions (execution_id, tenant, workflow_id, workflow_name, revision, status,
    current_phase, phases, tasks_total, input, started_at, updated_at, partition, first_position,
    last_position)
SELECT id, tenant, workflow_id, name, revision, 'executing', '0/' || phases, phases, tasks,
    input::json, time::timestamptz, time::timestamptz, partition, position, position
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
            $8::text[], $9::text[], $10::int[], $11::bigint[])
    AS s(id, tenant, workflow_id, name, revision, phases, tasks, input, time, partition, position)
ON CONFLICT DO NOTHING
"""

CHANGE = """
UPDATE executions AS x
SET status = coalesce(c.status, x.status),
    current_phase = coalesce(c.phase, x.current_phase),
    tasks_scheduled = CASE WHEN c.ended THEN 0 ELSE x.tasks_scheduled + c.scheduled END,
    tasks_running = CASE WHEN c.ended THEN 0 ELSE x.tasks_running + c.running END,
    tasks_completed = x.tasks_completed + c.completed,
    tasks_failed = x.tasks_failed + c.failed,
    tasks_cancelled = x.tasks_cancelled + c.cancelled,
    attempts_failed = x.attempts_failed + c.attempts_failed,
    output = coalesce(c.output::json, x.output),
    reason = CASE WHEN c.status IS NULL THEN x.reason ELSE c.reason END,
    completed_at = CASE WHEN c.ended THEN c.time::timestamptz ELSE x.completed_at END,
    updated_at = c.time::timestamptz,
    last_position = c.position
FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::int[], $6::int[], $7::int[],
            $8::int[], $9::int[], $10::int[], $11::text[], $12::text[], $13::text[], $14::bigint[])
    AS c(id, status, phase, ended, scheduled, running, completed, failed, cancelled,
         attempts_failed, output, reason, time, position)
WHERE x.execution_id = c.id
"""


@dataclass(slots=True)
class Change:
    """What a batch changes in one row; field order is the statement's."""

    id: str
    status: str | None = None
    phase: str | None = None
    ended: bool = False
    scheduled: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts_failed: int = 0
    output: str | None = None
    reason: str | None = None
    time: str = ""
    position: int = 0


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    started: list[tuple[Any, ...]] = []
    changes: dict[str, Change] = {}
    for event in events:
        change = changes.get(event.root)
        if change is None:
            change = changes[event.root] = Change(event.root)
        if event.type == "ExecutionStarted":
            started.append(_start(event))
        else:
            _count(change, event)
        change.time, change.position = event.time, event.position
    statements: list[Statement] = []
    if started:
        statements.append((START, columns(started)))
    rows = [tuple(getattr(c, name) for name in Change.__slots__) for c in changes.values()]
    return [*statements, (CHANGE, columns(rows))]


def _start(event: Event) -> tuple[Any, ...]:
    data = event.data
    return (
        event.root,
        event.tenant,
        data["workflow_id"],
        data["name"],
        data["revision"],
        data["phases"],
        data["tasks"],
        _json(data["input"]),
        event.time,
        event.partition,
        event.position,
    )


def _count(change: Change, event: Event) -> None:
    match event.type:
        case "TaskScheduled":
            change.scheduled += 1
        case "TaskStarted":
            change.scheduled -= 1
            change.running += 1
        case "TaskCompleted":
            change.running -= 1
            change.completed += 1
        case "PhaseEntered":
            change.phase = f"{event.data['phase']}/{event.data['of']}"
        case "TaskFailed":
            change.running -= 1
            change.attempts_failed += 1
            change.failed += not event.data["retried"]
        case "TaskCancelled":
            change.cancelled += 1
        case _:
            change.status = STATUS[event.type]
            change.ended = change.status in ENDED
            change.output = _json(event.data.get("output"))
            change.reason = event.data.get("reason")


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


EXECUTIONS = Projection(
    name="executions",
    version=1,
    tables=("executions",),
    types=frozenset(STATUS)
    | {
        "ExecutionStarted",
        "PhaseEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskCompleted",
        "TaskFailed",
        "TaskCancelled",
    },
    apply=apply,
)
