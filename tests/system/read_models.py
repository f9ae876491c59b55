"""The rows that the read models must have after a history, folded one event at a time.

The projections write whole batches with set-based SQL and differences; this goes the other way,
event by event to whole rows, and shares nothing with them (I13).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import asyncpg

from tests.system.checks import Json

Rows = dict[tuple[str, ...], Json]

KEYS = {
    "workflows": ("workflow_id",),
    "executions": ("execution_id",),
    "tasks": ("execution_id", "task_id"),
    "agents": ("agent_id",),
    "histories": ("subject",),
}
ENDINGS = {
    "ExecutionCompleted": "completed",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}


async def equal_the_fold(pool: asyncpg.Pool, history: dict[int, list[Json]]) -> dict[str, int]:
    """Every table holds exactly the rows that the events mean; returns how many."""
    expected = fold(event for events in history.values() for event in events)
    counted = {}
    for table, keys in KEYS.items():
        rows = [dict(row) for row in await pool.fetch(f"SELECT * FROM {table}")]
        found = {tuple(row[key] for key in keys): _parsed(row) for row in rows}
        wanted = expected[table]
        assert found.keys() == wanted.keys(), table
        for key, row in wanted.items():
            differing = {n: (found[key][n], row[n]) for n in row if found[key][n] != row[n]}
            assert found[key] == row, f"{table} {key}: {differing}"
        counted[table] = len(found)
    return counted


def fold(events: Iterable[Json]) -> dict[str, Rows]:
    """The tables after these events, which are in order within each partition."""
    tables: dict[str, Rows] = {table: {} for table in KEYS}
    for event in events:
        kind, _, root = event["subject"].partition("/")
        span = tables["histories"].setdefault(
            (event["subject"],),
            {
                "subject": event["subject"],
                "partition": event["partition"],
                "first_position": event["position"],
            },
        )
        span["last_position"] = event["position"]
        if event["type"] != "CommandRejected":
            _FOLDS[kind](tables, root, event, event["data"], _time(event["time"]))
    for (execution_id,), row in tables["executions"].items():
        _count(row, [r for (e, _), r in tables["tasks"].items() if e == execution_id])
    return tables


def _workflow(tables: dict[str, Rows], root: str, event: Json, data: Json, time: datetime) -> None:
    new = {"tenant": event["tenant"], "created_at": time, "status": "active"}
    row = tables["workflows"].setdefault((root,), new)
    row["updated_at"] = time
    if event["type"] == "WorkflowArchived":
        row["status"] = "archived"
    else:
        row |= {"workflow_id": root} | data


def _agent(tables: dict[str, Rows], root: str, event: Json, data: Json, time: datetime) -> None:
    new = {"tenant": event["tenant"], "registered_at": time, "circuit": "closed", "lost": False}
    row = tables["agents"].setdefault((root,), new)
    row["updated_at"] = time
    row["reason"] = data.get("reason", row.get("reason"))
    match event["type"]:
        case "AgentRegistered":
            row |= {"agent_id": root, "status": "active", "reason": ""}
            known = ("name", "roles", "capabilities", "capacity", "cost", "region")
            row |= {name: data[name] for name in known}
        case "AgentDrained":
            row["status"] = "draining"
        case "AgentDeregistered":
            row |= {"status": "deregistered", "circuit": "closed", "lost": False}
        case "AgentLost":
            row["lost"] = True
        case "AgentReturned":
            row |= {"lost": False, "reason": ""}
        case circuit:
            state = {"CircuitOpened": "open", "CircuitHalfOpened": "half_open"}
            row["circuit"] = state.get(circuit, "closed")


def _execution(tables: dict[str, Rows], root: str, event: Json, data: Json, time: datetime) -> None:
    kind = event["type"]
    if kind == "ExecutionStarted":
        tables["executions"][root,] = {
            "execution_id": root,
            "tenant": event["tenant"],
            "workflow_id": data["workflow_id"],
            "workflow_name": data["name"],
            "revision": data["revision"],
            "status": "executing",
            "current_phase": f"0/{data['phases']}",
            "phases": data["phases"],
            "tasks_total": data["tasks"],
            "attempts_failed": 0,
            "tasks_compensated": 0,
            "timeout_seconds": data["timeout_seconds"],
            "input": data["input"],
            "output": None,
            "reason": None,
            "started_at": time,
            "completed_at": None,
            "partition": event["partition"],
            "first_position": event["position"],
        }
    row = tables["executions"][root,]
    row |= {"updated_at": time, "last_position": event["position"]}
    if kind in ENDINGS:
        row |= {"status": ENDINGS[kind], "completed_at": time}
    elif kind in ("ExecutionPaused", "ExecutionResumed", "ExecutionRetried"):
        row["status"] = "paused" if kind == "ExecutionPaused" else "executing"
    elif kind == "PhaseEntered":
        row["current_phase"] = f"{data['phase']}/{data['of']}"
    elif kind == "CompensationStarted":
        row["current_phase"] = "compensating"
    elif "task" in data:
        _task(tables, root, event, data, time)
        row["attempts_failed"] += kind in ("TaskFailed", "TaskTimedOut")
        row["tasks_compensated"] += kind == "TaskCompensated"
    if kind == "ExecutionRetried":
        row["completed_at"] = None
        for task in data["tasks"]:
            tables["tasks"][root, task]["status"] = "pending"
    if kind in ENDINGS or kind in ("ExecutionPaused", "ExecutionResumed", "ExecutionRetried"):
        row["output"] = data.get("output", row["output"])
        row["reason"] = data.get("reason")


UNDOING = {
    "CompensationScheduled": "scheduled",
    "CompensationFailed": "scheduled",
    "TaskCompensated": "compensated",
    "CompensationParked": "parked",
}


def _task(tables: dict[str, Rows], root: str, event: Json, data: Json, time: datetime) -> None:
    row = tables["tasks"].setdefault(
        (root, data["task"]),
        {"execution_id": root, "task_id": data["task"], "tenant": event["tenant"], "error": None}
        | {"compensation": None},
    )
    if event["type"] in UNDOING:
        row["compensation"] = UNDOING[event["type"]]
        row["error"] = data.get("error", row["error"])
        return
    row["attempt"] = data["attempt"]
    match event["type"]:
        case "TaskScheduled":
            row |= {"status": "scheduled", "agent_role": data["role"], "phase": data["phase"]}
            row |= {"priority": data["priority"], "scheduled_at": time, "started_at": None}
            row |= {"completed_at": None, "agent_id": None, "output": None, "prompt": None}
        case "TaskStarted":
            row |= {"status": "running", "agent_id": data["agent"]}
            row["started_at"] = max(row["scheduled_at"], min(time, _said(data["started_at"], time)))
        case "TaskTakenOver":
            row["agent_id"] = data["agent"]
        case "TaskCompleted":
            row |= {"status": "completed", "agent_id": data["agent"], "completed_at": time}
            row["output"] = data["output"]
        case "TaskFailed":
            row |= {"status": "pending" if data["retried"] else "failed", "error": data["error"]}
            row |= {"agent_id": data["agent"], "completed_at": time}
        case "TaskTimedOut":
            row |= {"status": "pending" if data["retried"] else "timed_out"}
            row |= {"completed_at": time, "error": data["reason"]}
            row["agent_id"] = data["agent"] or row["agent_id"]
        case "InputRequested":
            row |= {"status": "waiting", "agent_id": data["agent"], "prompt": data["prompt"]}
        case "InputProvided":
            row["status"] = "pending"
        case "TaskCancelled":
            row |= {"status": "cancelled", "completed_at": time}


def _count(row: Json, tasks: list[Json]) -> None:
    counted = Counter(task["status"] for task in tasks)
    for status in ("scheduled", "running", "waiting", "completed", "failed", "cancelled"):
        row[f"tasks_{status}"] = counted[status]
    row["tasks_failed"] += counted["timed_out"]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _said(text: str | None, otherwise: datetime) -> datetime:
    """The moment that an agent named, where it is one."""
    try:
        moment = _time(text or "")
        return moment.astimezone(UTC) if moment.tzinfo else otherwise
    except (OverflowError, ValueError):
        return otherwise


def _parsed(row: Json) -> Json:
    """The same row, its JSON columns as values."""
    return row | {
        name: json.loads(row[name])
        for name in ("input", "output", "prompt")
        if row.get(name) is not None
    }


_FOLDS = {"workflow": _workflow, "agent": _agent, "execution": _execution}
