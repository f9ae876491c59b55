"""`orchestrator explain`: why an execution is where it is, in one screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output
from processors.cli.exits import NotFound, run

if TYPE_CHECKING:
    from processors.explain.facts import Facts
    from processors.explain.findings import Finding


def explain(
    execution: str = typer.Argument(help="The execution's id."),
    as_json: bool = typer.Option(False, "--json", help="Print facts and findings as JSON."),
) -> None:
    """Say why an execution is not moving, and what would help.

    Takes about two seconds, since who is alive is seen by looking twice.

    Example:  orchestrator explain 0190…
    """

    async def work() -> tuple[Facts, list[Finding]]:
        from processors.cli.engine import reader, reading_both
        from processors.explain.findings import findings
        from processors.explain.gather import Unheard, gather, opened

        async with reading_both() as (log, bus):
            try:
                facts = await gather(log, bus, execution, datetime.now(UTC))
            except Unheard as error:
                raise NotFound(str(error)) from None
            await opened(facts, reader(log, "explain"))
            return facts, findings(facts)

    facts, found = run(work, as_json=as_json)
    if as_json:
        from dataclasses import asdict

        output.as_json(asdict(facts) | {"findings": [one._asdict() for one in found]})
    else:
        _show(facts, found)


def _show(facts: Facts, found: list[Finding]) -> None:
    rows: list[tuple[str, Any]] = [
        ("execution", facts.execution_id),
        ("status", facts.status),
        ("tasks", f"{facts.completed:,} of {facts.tasks:,} completed"),
        ("last event", f"{facts.last_event} at {facts.last_time:%Y-%m-%d %H:%M:%S} UTC"),
        ("partition", facts.partition),
    ]
    output.facts(rows)
    for finding in found:
        typer.echo(f"{'●' if finding.blocks else '·'} {output.plain(finding.text)}")
        if finding.cure is not None:
            typer.echo(f"    {output.plain(finding.cure)}")
