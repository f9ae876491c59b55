"""`orchestrator bench`: measurements, which have commands of their own."""

from __future__ import annotations

import typer

from processors.cli.exits import explained


def bench(context: typer.Context) -> None:
    """Measure the engine on this machine; `orchestrator bench --help` lists the measurements.

    Example:  orchestrator bench plan
    """
    with explained():
        from processors.bench.command import app

        app(args=context.args, prog_name="orchestrator bench", standalone_mode=True)
