"""How a demo went, and the SQL to look further, with what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output, sql

if TYPE_CHECKING:
    from processors.cli.progress import Progress, Run

RUNS_SHOWN = 20


@dataclass(slots=True)
class Summary:
    """What is printed at the end; `seconds` are those from the first start to the last end."""

    executions: int
    completed: int
    tasks: int
    events: int
    seconds: float
    tasks_per_second: float
    events_per_second: float
    runs: list[dict[str, Any]]


async def summarise(progress: Progress, printed: bool, kept: bool) -> Summary:
    """The summary of what was watched; printed with a look into the read models."""
    ends = [run.ended_at for run in progress.runs if run.ended_at is not None]
    starts = [run.started_at for run in progress.runs]
    seconds = max((max(ends) - min(starts)).total_seconds(), 0.001) if ends else progress.seconds
    rows = await progress.log.pool.fetch(sql.EVENTS_OF, progress.executions)
    events = {row[0]: row[1] for row in rows}
    tasks = sum(run.completed for run in progress.runs)
    summary = Summary(
        executions=len(progress.runs),
        completed=sum(run.status == "completed" for run in progress.runs),
        tasks=tasks,
        events=progress.new_events,
        seconds=round(seconds, 3),
        tasks_per_second=round(tasks / seconds, 1),
        events_per_second=round(progress.new_events / seconds, 1),
        runs=[_described(run, events.get(run.execution_id, 0)) for run in progress.runs],
    )
    if printed:
        _table(summary)
        longest = max(progress.runs, key=lambda run: run.seconds or 0.0)
        for query in (sql.SLOWEST_TASKS, sql.COORDINATION):
            await _look(progress, query, longest.execution_id)
        _hints(kept)
    return summary


def _described(run: Run, events: int) -> dict[str, Any]:
    seconds = run.seconds
    return {
        "execution_id": run.execution_id,
        "name": run.name,
        "status": run.status,
        "tasks": run.tasks,
        "completed": run.completed,
        "events": events,
        "seconds": seconds,
        "tasks_per_second": round(run.completed / seconds, 1) if seconds else None,
    }


def _table(summary: Summary) -> None:
    lines = [
        (
            run["name"],
            run["status"],
            f"{run['completed']:,}/{run['tasks']:,}",
            run["events"],
            "" if run["seconds"] is None else f"{run['seconds']:,.2f}",
            "" if run["tasks_per_second"] is None else f"{run['tasks_per_second']:,.0f}",
        )
        for run in summary.runs[:RUNS_SHOWN]
    ]
    if len(summary.runs) > RUNS_SHOWN:
        lines.append((f"… {len(summary.runs) - RUNS_SHOWN:,} more", "", "", "", "", ""))
    lines.append(
        (
            "in all",
            f"{summary.completed:,}/{summary.executions:,} completed",
            f"{summary.tasks:,}",
            summary.events,
            f"{summary.seconds:,.2f}",
            f"{summary.tasks_per_second:,.0f}",
        )
    )
    typer.echo()
    output.rows(("workflow", "status", "tasks#", "events#", "seconds#", "tasks/s#"), lines)


async def _look(progress: Progress, query: str, execution: str) -> None:
    """A query as people would type it, and what it finds."""
    rows = await progress.log.pool.fetch(query, execution)
    if rows:
        typer.echo("\n" + query.strip().replace("$1", f"'{execution}'") + ";")
        output.rows(tuple(rows[0].keys()), [tuple(row.values()) for row in rows])


def _hints(kept: bool) -> None:
    typer.echo()
    if kept:
        typer.echo(
            "The data stays. To look further: `orchestrator up`, then `orchestrator status`,\n"
            'or psql "$DATABASE_URL" and TABLE executions; TABLE tasks; TABLE audit;'
        )
    else:
        typer.echo(
            "The data is deleted now. To look further: `orchestrator demo --keep`, then\n"
            "`orchestrator up`, which prints the DATABASE_URL for psql."
        )
