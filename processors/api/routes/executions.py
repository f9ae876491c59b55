"""Executions as the read models have them: lists, one of them, its tasks and how it stands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import json, row_shown, tagged
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import ID, ID_CHARS_MAX, Before, ExecutionId, Since, WorkflowId
from processors.api.payloads import EXECUTION, TASK, opened, shortened
from processors.api.problems import Problem
from processors.api.reading import Reader, Reading
from processors.api.requests import JsonRoute

AGENTS_MAX = 1_000  # of one execution's status; how many more there are is said

COUNTS = {
    "total": "tasks_total",
    "scheduled": "tasks_scheduled",
    "running": "tasks_running",
    "waiting": "tasks_waiting",
    "completed": "tasks_completed",
    "failed": "tasks_failed",
    "cancelled": "tasks_cancelled",
    "compensated": "tasks_compensated",
}

COLUMNS = f"""execution_id, workflow_id, workflow_name, revision, status, current_phase, phases,
    {", ".join(COUNTS.values())}, attempts_failed, timeout_seconds, reason, started_at,
    completed_at, updated_at"""

LIST = f"""
SELECT {COLUMNS} FROM executions
WHERE tenant = $1 AND ($2::text IS NULL OR workflow_id = $2) AND ($3::text IS NULL OR status = $3)
  AND ($4::timestamptz IS NULL OR started_at >= $4)
  AND ($5::timestamptz IS NULL OR started_at < $5)
  AND ($6::timestamptz IS NULL OR (started_at, execution_id) < ($6, $7::text))
ORDER BY started_at DESC, execution_id DESC LIMIT $8
"""  # noqa: S608
"""A page of executions, the newest first."""

SHOW = f"""
SELECT {COLUMNS}, input, output, (
    SELECT (e.message ->> 'version')::bigint FROM events AS e
    WHERE e.partition = x.partition AND e.position = x.last_position
) AS at_version
FROM executions AS x WHERE tenant = $1 AND execution_id = $2
"""  # noqa: S608
"""One execution, and the version of it that the row shows."""

NEWEST = """
SELECT execution_id FROM executions WHERE tenant = $1 AND workflow_id = $2
ORDER BY started_at DESC, execution_id DESC LIMIT 1
"""
"""A workflow's newest execution."""

STATUS = """
SELECT x.workflow_id, x.execution_id, x.status, x.current_phase,
       extract(epoch FROM p.total_runtime)::float8 AS total_runtime, p.agents_allocated,
       x.tasks_completed, p.coordination_overhead::float8
FROM executions AS x JOIN execution_performance AS p USING (execution_id)
WHERE x.tenant = $1 AND x.execution_id = $2
"""
"""How an execution stands, and what it has cost so far."""

AT_WORK = """
SELECT agent_id,
       (array_agg(task_id ORDER BY status <> 'running', started_at DESC)
           FILTER (WHERE status IN ('running', 'waiting')))[1] AS current_task,
       bool_or(status = 'running') AS running, bool_or(status = 'waiting') AS waiting,
       count(*) AS tasks,
       count(*) FILTER (WHERE status NOT IN ('running', 'waiting')) AS ended,
       count(*) OVER () AS agents
FROM tasks
WHERE tenant = $1 AND execution_id = $2 AND agent_id IS NOT NULL
GROUP BY agent_id ORDER BY bool_or(status = 'running') DESC, agent_id LIMIT $3
"""
"""Who works for an execution, or has: a task that waits for an answer is assigned."""

TASKS = """
SELECT task_id, agent_role, status, attempt, agent_id, phase, priority, scheduled_at, started_at,
       completed_at, error, output, prompt, compensation
FROM tasks
WHERE tenant = $1 AND execution_id = $2 AND ($3::text IS NULL OR status = $3)
  AND ($4::text IS NULL OR task_id > $4)
ORDER BY task_id LIMIT $5
"""
"""A page of an execution's tasks, by id."""

EXISTS = "SELECT 1 FROM executions WHERE tenant = $1 AND execution_id = $2"

ExecutionStatus = Literal["planning", "executing", "paused", "completed", "failed", "cancelled"]
TaskStatus = Literal[
    "pending", "scheduled", "running", "waiting", "completed", "failed", "timed_out", "cancelled"
]

router = APIRouter(prefix="/api/v1", tags=["executions"], route_class=JsonRoute)


@router.get("/executions", response_model=shown.Page[shown.Execution])
async def list_executions(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    workflow_id: Annotated[str | None, Query(pattern=ID, max_length=ID_CHARS_MAX)] = None,
    status: ExecutionStatus | None = None,
    since: Since = None,
    before: Before = None,
) -> Response:
    """The newest executions first."""
    filters = ("executions", workflow_id, status, since, before)
    place = read(cursor, filters, (datetime, str)) or [None, None]
    rows = await reading.rows(LIST, workflow_id, status, since, before, *place, limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    place = [last["started_at"], last["execution_id"]] if last else []
    items = [_execution(row) for row in rows]
    for item in items:
        item["reason"] = shortened(reading, item["reason"])
    return json(page(items, limit, filters, place))


@router.get("/executions/{execution_id}", response_model=shown.WholeExecution)
async def get_execution(execution_id: ExecutionId, reading: Reading) -> Response:
    """An execution with its input and output; its ETag is for If-Match."""
    row = await reading.row(SHOW, execution_id)
    if row is None:
        raise unknown_execution(execution_id)
    body = _execution(row, ("input", "output"))
    await opened(reading, f"execution/{execution_id}", [body], [row], EXECUTION)
    return tagged(body, body.pop("at_version"))


@router.get("/executions/{execution_id}/status", response_model=shown.ExecutionStatus)
async def get_status(execution_id: ExecutionId, reading: Reading) -> Response:
    """How an execution stands: its phase, its agents, its figures."""
    return await _status(reading, execution_id)


@router.get("/workflows/{workflow_id}/status", response_model=shown.ExecutionStatus)
async def get_workflow_status(workflow_id: WorkflowId, reading: Reading) -> Response:
    """How the newest execution of a workflow stands."""
    return await _status(reading, await newest(reading, workflow_id))


@router.get("/executions/{execution_id}/tasks", response_model=shown.Page[shown.Task])
async def list_tasks(
    execution_id: ExecutionId,
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: TaskStatus | None = None,
) -> Response:
    """The tasks that were ever scheduled, by id."""
    filters = ("tasks", execution_id, status)
    [after] = read(cursor, filters, (str,)) or [None]
    rows = await reading.rows(TASKS, execution_id, status, after, limit + 1)
    if not rows:
        await existing(reading, execution_id)
    items = [row_shown(row, ("output", "prompt")) for row in rows]
    await opened(reading, f"execution/{execution_id}", items, rows, TASK)
    last = [items[limit - 1]["task_id"]] if len(items) > limit else []
    return json(page(items, limit, filters, last))


async def newest(reading: Reader, workflow_id: str) -> str:
    """The id of a workflow's newest execution; raises Problem."""
    row = await reading.row(NEWEST, workflow_id)
    if row is None:
        detail = f"There is no execution of a workflow {workflow_id}."
        raise Problem("UNKNOWN_EXECUTION", detail)
    return str(row[0])


async def existing(reading: Reader, execution_id: str) -> None:
    """Raises Problem where there is no such execution."""
    if await reading.row(EXISTS, execution_id) is None:
        raise unknown_execution(execution_id)


def unknown_execution(execution_id: str) -> Problem:
    """There is none of this id, or it is somebody else's."""
    return Problem("UNKNOWN_EXECUTION", f"There is no execution {execution_id}.")


def _execution(row: asyncpg.Record, raw: tuple[str, ...] = ()) -> dict[str, Any]:
    fields = row_shown(row, raw)
    fields["tasks"] = {name: fields.pop(column) for name, column in COUNTS.items()}
    return fields


async def _status(reading: Reader, execution_id: str) -> Response:
    row = await reading.row(STATUS, execution_id)
    if row is None:
        raise unknown_execution(execution_id)
    agents = await reading.rows(AT_WORK, execution_id, AGENTS_MAX)
    of_all = agents[0]["agents"] if agents else 0
    names = ("workflow_id", "execution_id", "status", "current_phase")
    figures = ("total_runtime", "agents_allocated", "tasks_completed", "coordination_overhead")
    return json(
        {name: row[name] for name in names}
        | {
            "agents": [_at_work(agent) for agent in agents],
            "agents_left_out": of_all - len(agents),
            "performance_metrics": {name: row[name] for name in figures},
        }
    )


def _at_work(agent: asyncpg.Record) -> dict[str, Any]:
    status = "running" if agent["running"] else "assigned" if agent["waiting"] else "completed"
    return {
        "agent_id": agent["agent_id"],
        "status": status,
        "current_task": agent["current_task"],
        "progress": agent["ended"] / agent["tasks"],
    }
