"""`orchestrator watch`: an execution's progress until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from processors.cli import output
from processors.cli.exits import Code, NotFound, run

if TYPE_CHECKING:
    from processors.cli.progress import Run


def watch(
    execution: str | None = typer.Argument(None, help="Its id; else the newest execution."),
) -> None:
    """Show an execution's progress until it ends; Ctrl-C only ends the watching.

    The exit code is 0 when it completed, 1 when it failed or was cancelled. Where there is no
    terminal it prints a line a second.

    Example:  orchestrator watch && echo done
    """

    async def look() -> Run:
        from processors.cli import sql
        from processors.cli.engine import reading
        from processors.cli.live import follow
        from processors.cli.progress import Progress

        async with reading() as log:
            query, wanted = (sql.RUNS, [execution]) if execution else (sql.NEWEST_RUNS, 1)
            rows = await log.pool.fetch(query, wanted)
            if not rows:
                text = f"There is no execution {execution}." if execution else "Nothing ran yet."
                raise NotFound(text)
            progress = Progress(log, [rows[0][0]], expected=1)
            await follow(progress)
            return progress.runs[0]

    ended = run(look)
    typer.echo(f"{ended.execution_id} {ended.status}.")
    if ended.status != "completed":
        output.note(f"Why: orchestrator events {ended.execution_id} --limit 0")
        raise typer.Exit(Code.REFUSED)
