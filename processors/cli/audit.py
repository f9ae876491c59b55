"""`orchestrator audit`: who did what, and the whole trail as a file that proves itself."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from processors.cli import output
from processors.cli.exits import CODES, run

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

READS = """
SELECT number, time, tenant, actor, origin, action, subject, via, payloads, allowed, detail, hash
FROM audit_reads WHERE number > $1 ORDER BY number LIMIT $2
"""
PAGE_READS = 5_000

LIST = """
SELECT time, tenant, actor, origin, subject, type, allowed FROM audit
WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR subject = $3) AND (NOT $4 OR NOT allowed)
ORDER BY time DESC LIMIT $5
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Who did what, when, from where, allowed or refused: commands, and reads of payloads.",
)


@app.command("list", epilog=CODES)
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this actor.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only of this: execution/ID.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest entries of the trail.

    Example:  orchestrator audit list --refused
    """

    async def read() -> list[dict[str, Any]]:
        from processors.cli.engine import reading

        async with reading() as log:
            rows = await log.fetch(LIST, tenant, actor, subject, refused, limit)
            return [dict(row) for row in rows]

    found = run(read, as_json=as_json)
    if as_json:
        output.as_json(found)
    else:
        columns = ("time", "tenant", "actor", "from", "subject", "what", "allowed")
        output.rows(columns, [tuple(row.values()) for row in found])


@app.command(epilog=CODES)
def export(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; stdout where left out.")
    ] = None,
) -> None:
    """Write the whole log and the trail of reads as CloudEvents, one a line, with their hashes.

    Payloads stay sealed. The digest, which is printed at the end, tells this history from another
    one: keep it elsewhere. `orchestrator verify --export FILE` needs no database.

    Example:  orchestrator audit export trail.jsonl && orchestrator verify --export trail.jsonl
    """

    async def write() -> str:
        from processors.cli.engine import reading

        opened: Any = nullcontext(typer.get_binary_stream("stdout"))
        if file is not None:
            opened = file.open("xb")
        async with reading() as log:
            with opened as out:
                return await _export(log, out)

    output.note(f"Digest: {run(write)}")


async def _export(log: PostgresLog, out: BinaryIO) -> str:
    from streams.export import digest_of, end_line, partition_lines, read_line

    ends: dict[str, Any] = {}
    for partition in range(await log.partitions()):
        async for line in partition_lines(log, partition, ends):
            out.write(line + b"\n")
    number, chained = 0, b""
    while rows := await log.fetch(READS, number, PAGE_READS):
        for row in rows:
            out.write(read_line(dict(row)) + b"\n")
        number, chained = rows[-1]["number"], rows[-1]["hash"]
    reads = {"number": number, "hash": chained.hex()}
    out.write(end_line(ends, reads, datetime.now(UTC)) + b"\n")
    out.flush()
    return digest_of(ends, reads)
