"""The read model `executions`: one row an execution, with its counts as of now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
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
    "ExecutionRetried": "executing",
}
ENDED = frozenset({"completed", "failed", "cancelled"})
BESIDE = frozenset(
    {
        "TaskTakenOver",
        "SignalReceived",
        "CompensationScheduled",
        "CompensationFailed",
        "CompensationParked",
    }
)

START = """
INSERT INTO executions (execution_id, tenant, workflow_id, workflow_name, revision, status,
    current_phase, phases, tasks_total, input, timeout_seconds, started_at, updated_at, partition,
    first_position, last_position)
SELECT id, tenant, workflow_id, name, revision, 'executing', '0/' || phases, phases, tasks,
    input::json, timeout, time::timestamptz, time::timestamptz, partition, position, position
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
            $8::text[], $9::float8[], $10::text[], $11::int[], $12::bigint[])
    AS s(id, tenant, workflow_id, name, revision, phases, tasks, input, timeout, time, partition,
         position)
ON CONFLICT DO NOTHING
"""

# The row is there, yet this too is an upsert; see `tasks` for why. Counts are differences, but
# where the batch has seen all tasks in flight end (`cleared`) or the execution begin again
# (`again`): then they are what the batch has counted since. Both travel in columns that are never
# written, `phases` and `tasks_total`.
CHANGE = """
INSERT INTO executions AS x (execution_id, tenant, workflow_id, workflow_name, revision, status,
    current_phase, phases, tasks_total, tasks_scheduled, tasks_running, tasks_waiting,
    tasks_completed, tasks_failed, tasks_cancelled, tasks_compensated, attempts_failed, output,
    reason, started_at, completed_at, updated_at, partition, first_position, last_position)
SELECT id, '', '', '', 0, coalesce(status, ''), coalesce(phase, ''), cleared::int, again::int,
    scheduled, running, waiting, completed, failed, cancelled, compensated, attempts_failed,
    output::json, reason, time::timestamptz, ended::timestamptz,
    time::timestamptz, 0, 0, position
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::int[],
            $8::int[], $9::int[], $10::int[], $11::int[], $12::int[], $13::int[], $14::int[],
            $15::text[], $16::text[], $17::text[], $18::bigint[])
    AS c(id, status, phase, ended, cleared, again, scheduled, running, waiting, completed, failed,
         cancelled, compensated, attempts_failed, output, reason, time, position)
ON CONFLICT (execution_id) DO UPDATE
SET status = coalesce(nullif(excluded.status, ''), x.status),
    current_phase = coalesce(nullif(excluded.current_phase, ''), x.current_phase),
    tasks_scheduled = excluded.tasks_scheduled
        + CASE excluded.phases WHEN 0 THEN x.tasks_scheduled ELSE 0 END,
    tasks_running = excluded.tasks_running
        + CASE excluded.phases WHEN 0 THEN x.tasks_running ELSE 0 END,
    tasks_waiting = excluded.tasks_waiting
        + CASE excluded.phases WHEN 0 THEN x.tasks_waiting ELSE 0 END,
    tasks_completed = x.tasks_completed + excluded.tasks_completed,
    tasks_failed = excluded.tasks_failed
        + CASE excluded.tasks_total WHEN 0 THEN x.tasks_failed ELSE 0 END,
    tasks_cancelled = excluded.tasks_cancelled
        + CASE excluded.tasks_total WHEN 0 THEN x.tasks_cancelled ELSE 0 END,
    tasks_compensated = x.tasks_compensated + excluded.tasks_compensated,
    attempts_failed = x.attempts_failed + excluded.attempts_failed,
    output = coalesce(excluded.output, x.output),
    reason = CASE excluded.status WHEN '' THEN x.reason ELSE excluded.reason END,
    completed_at = CASE WHEN excluded.tasks_total = 0 AND excluded.completed_at IS NULL
        THEN x.completed_at ELSE excluded.completed_at END,
    updated_at = excluded.updated_at,
    last_position = excluded.last_position
"""


@dataclass(slots=True)
class Change:
    """What a batch changes in one row; field order is the statement's."""

    id: str
    status: str | None = None
    phase: str | None = None
    ended: str | None = None
    cleared: bool = False
    again: bool = False
    scheduled: int = 0
    running: int = 0
    waiting: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    compensated: int = 0
    attempts_failed: int = 0
    output: str | None = None
    reason: str | None = None
    time: str = ""
    position: int = 0

    def clear(self) -> None:
        """No task is in flight any more."""
        self.cleared = True
        self.scheduled = self.running = self.waiting = 0

    def begin_again(self) -> None:
        """What had failed or was cancelled is open again."""
        self.again = True
        self.failed = self.cancelled = 0


VALUES = attrgetter(*Change.__slots__)


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
    return [*statements, (CHANGE, columns([VALUES(change) for change in changes.values()]))]


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
        data.get("timeout_seconds"),
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
        case "TaskTimedOut":
            if event.data["agent"] is None:
                change.scheduled -= 1
            else:
                change.running -= 1
            change.attempts_failed += 1
            change.failed += not event.data["retried"]
        case "TaskCancelled":
            change.cancelled += 1
        case "InputRequested":
            change.running -= 1
            change.waiting += 1
        case "InputProvided":
            change.waiting -= 1
        case "CompensationStarted":
            change.phase = "compensating"
            change.clear()
        case "TaskCompensated":
            change.compensated += 1
        case _ if event.type in BESIDE:
            pass  # it counts nothing, but is the execution's newest event
        case _:
            change.status = STATUS[event.type]
            change.ended = event.time if change.status in ENDED else None
            if change.ended is not None:
                change.clear()
            if event.type == "ExecutionRetried":
                change.begin_again()
            change.output = _json(event.data.get("output"))
            change.reason = event.data.get("reason")


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


EXECUTIONS = Projection(
    name="executions",
    version=1,
    tables=("executions",),
    types=frozenset(STATUS)
    | BESIDE
    | {
        "ExecutionStarted",
        "PhaseEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskCompleted",
        "TaskFailed",
        "TaskTimedOut",
        "TaskCancelled",
        "InputRequested",
        "InputProvided",
        "CompensationStarted",
        "TaskCompensated",
    },
    apply=apply,
)
