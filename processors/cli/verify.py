"""`orchestrator verify`: was anything in the log changed?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from processors.cli import output
from processors.cli.exits import Code, Failed, explained, run

if TYPE_CHECKING:
    from streams.chain import Report


def verify(
    partition: int | None = typer.Option(None, min=0, help="Only this partition."),
    export: Annotated[
        Path | None,
        typer.Option(help="Check this file of `audit export`; no database is needed."),
    ] = None,
    digest: str | None = typer.Option(None, help="The digest that the export must have."),
    as_json: bool = typer.Option(False, "--json", help="Print one report a partition as JSON."),
) -> None:
    """Recompute the log's hash chain; exit 1 names the first position where it was tampered with.

    Reads the whole history: about a second for 300,000 events. Any number of processors may be
    at work meanwhile.

    Example:  orchestrator verify && echo untouched
    """
    if export is not None:
        _check_export(export, digest, as_json)
        return

    async def check() -> list[Report]:
        from processors.cli.engine import reading
        from streams import chain

        async with reading() as log:
            count = await log.partitions()
            if partition is not None and partition >= count:
                raise Failed(f"There are partitions 0 to {count - 1}.", Code.USAGE)
            wanted = range(count) if partition is None else [partition]
            return await chain.verify_all(log, wanted)

    reports = run(check, as_json=as_json)
    damaged = [report for report in reports if not report.ok]
    if as_json:
        output.as_json([asdict(report) for report in reports])
    elif not damaged:
        events = sum(report.events for report in reports)
        commits = sum(report.commits for report in reports)
        typer.echo(
            f"Untouched: {events:,} events in {commits:,} commits of {len(reports)} partitions."
        )
    for report in damaged:
        output.error(
            f"Damaged: partition {report.partition}, position {report.position}: {report.reason}."
        )
    if damaged:
        raise typer.Exit(Code.REFUSED)


def _check_export(file: Path, digest: str | None, as_json: bool) -> None:
    """Whether each line of an export is as it was written, and none is missing."""
    from streams.exported import check

    with explained(as_json), file.open("rb") as lines:
        found = check(lines)
    other = digest is not None and digest != found.digest
    if as_json:
        output.as_json(asdict(found) | {"ok": found.ok and not other})
    elif found.ok and not other:
        typer.echo(
            f"Untouched: {found.events:,} events in {found.commits:,} commits, {found.reads:,}"
            f" reads. Digest: {found.digest}"
        )
    for damage in found.damages:
        output.error(f"Damaged: line {damage.line:,}: {damage.reason}.")
    if other:
        output.error(f"Another history: its digest is {found.digest}, not {digest}.")
    if other or not found.ok:
        raise typer.Exit(Code.REFUSED)
