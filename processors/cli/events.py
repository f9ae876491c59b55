"""`orchestrator events`: history as it was stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from processors.cli import output
from processors.cli.exits import Code, Failed, NotFound, run

if TYPE_CHECKING:
    from processors.history import History, Row
    from processors.reading import Reader
    from streams.logs.postgres import PostgresLog
    from streams.message import Event

POLL_S = 0.25
DATA_CHARS = 100


def events(
    what: str | None = typer.Argument(
        None, help="An execution's id, or an aggregate such as workflow/ID; all where left out."
    ),
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")
    ] = None,
    partition: int | None = typer.Option(None, min=0, help="Only this partition."),
    after: int | None = typer.Option(None, min=0, help="Only what follows this position."),
    limit: int = typer.Option(100, min=0, help="At most so many; 0 for all."),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on with what happens next."),
    sealed: bool = typer.Option(False, "--sealed", help="Leave payloads as they are stored."),
    as_json: bool = typer.Option(False, "--json", help="Print the envelopes, one a line."),
) -> None:
    """Print events: of one aggregate or partition from the beginning, of all the newest.

    Payloads are opened where the keys are at hand, and that is noted in the audit trail.

    Positions count within a partition, so --after needs one aggregate or one partition.

    Example:  orchestrator events EXECUTION --type TaskFailed --limit 0 --json | jq .data
    """
    if after is not None and what is None and partition is None:
        raise typer.BadParameter("--after needs an aggregate or --partition")
    subject = what if what is None or "/" in what else f"execution/{what}"

    async def show() -> None:
        from processors.cli.engine import reader, reading

        async with reading() as log:
            history = await _history(log, subject, partition, after or 0, types or [])
            newest = subject is None and after is None
            see = None if sealed else reader(log, "events")
            printed = await _print(history, limit, as_json, newest, see)
            if subject is not None and not printed and not follow and not after and not types:
                raise NotFound(f"There are no events of {subject}.")
            while follow:
                await asyncio.sleep(POLL_S)
                await _print(history, 0, as_json, see=see)

    run(show)


async def _history(
    log: PostgresLog, subject: str | None, partition: int | None, after: int, types: list[str]
) -> History:
    from processors.history import History
    from streams.partition import partition_of

    count = await log.partitions()
    wanted = list(range(count))
    if subject is not None:
        wanted = [partition_of(subject.partition("/")[2], count)]
        if partition not in (None, *wanted):
            raise Failed(f"{subject} lives in partition {wanted[0]}.", Code.USAGE)
    elif partition is not None:
        if partition >= count:
            raise Failed(f"There are partitions 0 to {count - 1}.", Code.USAGE)
        wanted = [partition]
    return History(log, dict.fromkeys(wanted, after), subject, types)


async def _print(
    history: History,
    limit: int,
    as_json: bool,
    newest: bool = False,
    see: Reader | None = None,
) -> int:
    """Print what is there now, within the limit; returns how many."""
    if newest and limit:
        rows = await history.newest(limit)
        for row, event in await _opened(rows, see):
            _line(row, event, as_json)
        return len(rows)
    printed = last = 0
    async for page in history.pages():
        for row, event in await _opened(page, see, limit and limit + 1 - printed):
            if limit and printed == limit:
                output.note(f"There is more: --after {last}, or --limit 0.")
                return printed
            _line(row, event, as_json)
            printed, last = printed + 1, row.position
    return printed


async def _opened(
    page: Sequence[Row], see: Reader | None, count: int = 0
) -> list[tuple[Row, Event]]:
    """Rows and what they say, with payloads in clear; no more is opened than is printed."""
    from streams.codec import decode_event

    rows = page[: count or None]
    events = [decode_event(row.message) for row in rows]
    return list(zip(rows, events if see is None else await see.events(events), strict=True))


def _line(row: Row, event: Event, as_json: bool) -> None:
    from orjson import dumps, loads

    if as_json:
        stored = loads(row.message)
        same = stored["data"] == event.data
        typer.echo(row.message if same else dumps(stored | {"data": event.data}))
        return
    data = dumps(event.data).decode()
    shown = data if len(data) <= DATA_CHARS else data[: DATA_CHARS - 1] + "…"
    place = f"{event.partition}/{event.position}"
    typer.echo(f"{event.time}  {place:>10}  {event.subject}  {event.type}  {shown}")
