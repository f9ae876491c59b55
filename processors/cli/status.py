"""`orchestrator status`: executions, as the read models have them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output
from processors.cli.exits import NotFound, run

if TYPE_CHECKING:
    from processors.cli.progress import Run

NEWEST = 20
TASKS_SHOWN = 20


def status(
    execution: str | None = typer.Argument(None, help="One execution's id; else the newest."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as JSON."),
) -> None:
    """Show one execution with its tasks' states, or the newest twenty.

    Example:  orchestrator status --json | jq '.[] | select(.status == "failed")'
    """
    if execution is not None:
        one = run(lambda: _one(execution), as_json=as_json)
        output.as_json(one) if as_json else _show(one)
        return
    newest = run(_newest, as_json=as_json)
    if as_json:
        output.as_json(newest)
    elif newest:
        columns = ("execution", "workflow", "status", "phase", "tasks", "failed#", "seconds#")
        output.rows(columns, [_line(row) for row in newest])
    else:
        typer.echo("There are no executions yet; `orchestrator submit FILE` starts one.")


async def _newest() -> list[dict[str, Any]]:
    from processors.cli import sql
    from processors.cli.engine import reading
    from processors.cli.progress import Run

    async with reading() as log:
        return [_described(Run(*row)) for row in await log.pool.fetch(sql.NEWEST_RUNS, NEWEST)]


async def _one(execution: str) -> dict[str, Any]:
    from processors.cli import sql
    from processors.cli.engine import reader, reading
    from processors.cli.progress import Run
    from processors.reading import ERROR

    async with reading() as log:
        rows = await log.pool.fetch(sql.RUNS, [execution])
        if not rows:
            raise NotFound(f"There is no execution {execution}.")
        tasks = await log.pool.fetch(sql.OPEN_TASKS, execution)
        phases = await log.pool.fetch(sql.PHASES, execution)
        run, open_tasks = Run(*rows[0]), [dict(row) for row in tasks]
        told = [(ERROR, run.reason), *((ERROR, task["error"]) for task in open_tasks)]
        reason, *errors = await reader(log, "status").of_execution(execution, told)
        for task, error in zip(open_tasks, errors, strict=True):
            task["error"] = error
        return _described(run._replace(reason=reason)) | {
            "by_phase": [dict(row) for row in phases],
            "open_tasks": open_tasks,
        }


def _described(run: Run) -> dict[str, Any]:
    end = run.ended_at or datetime.now(UTC)
    return run._asdict() | {"seconds": max(0.0, (end - run.started_at).total_seconds())}


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["execution_id"],
        row["name"],
        row["status"],
        f"{row['phase']}/{row['phases']}",
        f"{row['completed']:,}/{row['tasks']:,}",
        row["failed"],
        f"{row['seconds']:,.1f}",
    )


def _show(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("execution", row["execution_id"]),
            ("workflow", f"{row['name']} ({row['workflow_id']})"),
            ("status", row["status"]),
            ("phase", f"{row['phase']} of {row['phases']}"),
            ("tasks", f"{row['completed']:,} of {row['tasks']:,} completed"),
            ("", f"{row['running']:,} running, {row['waiting']:,} waiting for an agent"),
            ("", f"{row['failed']:,} failed, {row['attempts_failed']:,} attempts failed"),
            ("started", row["started_at"]),
            ("ended", row["ended_at"]),
            ("seconds", f"{row['seconds']:,.1f}"),
            ("reason", row["reason"]),
        ]
    )
    if row["by_phase"]:
        columns = ("phase#", "completed#", "running#", "waiting#", "failed#", "cancelled#")
        output.rows(columns, [tuple(phase.values()) for phase in row["by_phase"]])
    tasks = row["open_tasks"]
    if tasks:
        shown = [tuple(task.values()) for task in tasks[:TASKS_SHOWN]]
        output.rows(("task", "role", "status", "attempt#", "agent", "error"), shown)
    if len(tasks) > TASKS_SHOWN:
        output.note(f"… {len(tasks) - TASKS_SHOWN:,} more tasks; --json lists all.")
