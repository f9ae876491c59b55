"""Progress on a terminal, drawn again and again; elsewhere a line a second."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import typer

from processors.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from processors.cli.progress import Progress, Run

POLL_S = 0.2
LINE_S = 1.0
LINES_KEPT = 8  # of the terminal, for what stands above and below the rows
COLOURS = {"completed": "green", "failed": "red", "cancelled": "red", "paused": "yellow"}


async def follow(progress: Progress, quiet: bool = False) -> None:
    """Show progress until everything has ended."""
    console = output.console()
    if quiet or not console.is_terminal:
        await _lines(progress, quiet)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while not progress.ended:
            await progress.look()
            rows = max(3, console.height - LINES_KEPT)
            live.update(_drawn(progress, rows), refresh=True)
            await asyncio.sleep(POLL_S)


async def _lines(progress: Progress, quiet: bool) -> None:
    printed = time.monotonic()
    while not progress.ended:
        await progress.look()
        if not quiet and (progress.ended or time.monotonic() - printed >= LINE_S):
            typer.echo(progress.line())
            printed = time.monotonic()
        await asyncio.sleep(POLL_S)


def _drawn(progress: Progress, rows: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), caption=progress.line(), caption_justify="left")
    for name in ("workflow", "", "phase", "done", "running", "failed", "status"):
        table.add_column(
            name,
            justify="right" if name in ("phase", "done", "running", "failed") else "left",
            no_wrap=True,
        )
    for run in _most_telling(progress.runs, rows):
        table.add_row(
            Text(run.name, overflow="ellipsis"),
            ProgressBar(total=max(run.tasks, 1), completed=run.completed, width=30),
            f"{run.phase}/{run.phases}",
            f"{run.completed:,}/{run.tasks:,}",
            f"{run.running:,}",
            f"{run.failed:,}",
            Text(run.status, style=COLOURS.get(run.status, "")),
        )
    return table


def _most_telling(runs: list[Run], rows: int) -> list[Run]:
    """What is under way first, then what ended; as many as there is room for."""
    if len(runs) <= rows:
        return runs
    under_way = [run for run in runs if not run.ended]
    return (under_way + [run for run in reversed(runs) if run.ended])[:rows]
