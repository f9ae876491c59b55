"""`orchestrator dead-letters`: what could not be handled, and what is to become of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from processors.cli import output
from processors.cli.exits import CODES, Code, Failed, NotFound, run
from processors.cli.letter_text import COLUMNS, ID_CHARS, as_text, described, line, readable
from processors.cli.letter_text import as_hex as in_hex

if TYPE_CHECKING:
    from processors.dead_letters import Decision, Filter, Letter

SHOWN_BYTES = 2_000
AGE = re.compile(r"(\d{1,6})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What could not be handled: list it, look at it, try it again, or let it be.",
)

Kind = Annotated[str | None, typer.Option(help="Only command, event, task or hook.")]
Tenant = Annotated[str | None, typer.Option(help="Only of this tenant.")]
Reason = Annotated[str | None, typer.Option(help="Only with this in the reason.")]
Subject = Annotated[str | None, typer.Option(help="Only of this aggregate: execution/ID.")]
Older = Annotated[str | None, typer.Option("--older-than", help="Only older: 90s, 15m, 2h, 7d.")]
Newer = Annotated[str | None, typer.Option("--newer-than", help="Only younger: 90s, 15m, 2h, 7d.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, or the begins of some.")
]
Why = Annotated[str, typer.Option(help="Why; it is kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who decides; you, where left out.")]
Yes = Annotated[bool, typer.Option("--yes", help="Decide on all that the filters find.")]
Rate = Annotated[float, typer.Option(min=0.1, max=1_000, help="At most so many a second.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=CODES)
def list_(
    status: Annotated[str, typer.Option(help="open, retried, discarded, or all of them.")] = "open",
    kind: Kind = None,
    tenant: Tenant = None,
    reason: Reason = None,
    subject: Subject = None,
    older: Older = None,
    newer: Newer = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest first.

    Example:  orchestrator dead-letters list --kind command --older-than 1h
    """
    wanted = _filter(status, kind, tenant, reason, subject, older, newer)

    async def read() -> list[Letter]:
        from processors.cli.engine import reading
        from processors.dead_letters import find

        async with reading() as log:
            return await find(log.pool, wanted, limit=limit + 1)

    found = run(read, as_json=as_json)
    if as_json:
        output.as_json([described(letter) for letter in found[:limit]])
    elif found:
        output.rows(COLUMNS, map(line, found[:limit]))
    else:
        output.note("None.")
    if len(found) > limit:
        output.note(f"There are more than {limit}: --limit.")


@app.command(epilog=CODES)
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the begin of it.")],
    size: Annotated[
        int, typer.Option("--bytes", min=0, help="Show so many of its bytes; 0 for all.")
    ] = SHOWN_BYTES,
    as_hex: Annotated[bool, typer.Option("--hex", help="Show the bytes as they are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: where it came from, why it is here, and its bytes.

    Nothing in the bytes reaches the terminal as it stands: control characters are written out.

    Example:  orchestrator dead-letters show 3f9a --hex
    """

    async def read() -> Letter:
        from processors.cli.engine import reader, reading
        from processors.dead_letters import Unknown, show

        async with reading() as log:
            try:
                found = await show(log.pool, letter)
                see = reader(log, "dead-letters show")
                return found._replace(raw=await see.letter(found.id, found.raw))
            except Unknown as error:
                raise NotFound(str(error)) from None

    found = run(read, as_json=as_json)
    raw = found.raw[: size or None]
    if as_json:
        output.as_json(described(found) | {"raw": as_text(raw), "raw_hex": raw.hex()})
        return
    output.facts(described(found).items())
    typer.echo()
    typer.echo(in_hex(raw) if as_hex or not readable(raw) else as_text(raw))
    if len(raw) < found.raw_bytes:
        output.note(f"These are {len(raw):,} of {found.raw_bytes:,} bytes: --bytes.")


@app.command(epilog=CODES)
def retry(
    ids: Ids = None,
    why: Why = "",
    yes: Yes = False,
    by: By = None,
    kind: Kind = None,
    tenant: Tenant = None,
    reason: Reason = None,
    subject: Subject = None,
    older: Older = None,
    newer: Newer = None,
    rate: Rate = 50.0,
    as_json: AsJson = False,
) -> None:
    """Try dead letters again: commands are given once more, parked keys read on, tasks redone.

    Commands keep their ids, so that one which has taken effect meanwhile takes none again. Whoever
    is interrupted says the same once more: what was decided is not found again.

    Example:  orchestrator dead-letters retry --kind event --why "1.4.2 knows the event" --yes
    """
    wanted = _filter("open", kind, tenant, reason, subject, older, newer)
    _decide("retry", ids or [], wanted, why, yes, by, rate, as_json)


@app.command(epilog=CODES)
def discard(
    ids: Ids = None,
    why: Why = "",
    yes: Yes = False,
    by: By = None,
    kind: Kind = None,
    tenant: Tenant = None,
    reason: Reason = None,
    subject: Subject = None,
    older: Older = None,
    newer: Newer = None,
    rate: Rate = 50.0,
    as_json: AsJson = False,
) -> None:
    """Let dead letters be. Of a parked key the one event is left out, and the rest read on.

    Example:  orchestrator dead-letters discard 3f9a --why "sent by a test"
    """
    wanted = _filter("open", kind, tenant, reason, subject, older, newer)
    _decide("discard", ids or [], wanted, why, yes, by, rate, as_json)


def _decide(
    decision: Decision,
    ids: list[str],
    wanted: Filter,
    why: str,
    yes: bool,
    by: str | None,
    rate: float,
    as_json: bool,
) -> None:
    if not why.strip():
        raise typer.BadParameter("say why: --why")
    if not ids and not yes:
        raise typer.BadParameter("name letters, or give filters and --yes")
    who = by or _user()

    async def decide() -> tuple[list[dict[str, Any]], int]:
        from processors.cli.engine import publishing

        done: list[dict[str, Any]] = []
        refused = 0
        async with publishing() as client:
            async for one in _each(client, decision, ids, wanted, why, who, rate):
                refused += one.problem is not None
                said = {"id": one.letter.id, "kind": one.letter.kind, "decision": decision}
                done.append(said | ({"problem": one.problem} if one.problem else {}))
                if one.problem and not as_json:
                    output.note(f"{one.letter.id[:ID_CHARS]}: {one.problem.get('detail')}")
        return done, refused

    done, refused = run(decide, as_json=as_json)
    if as_json:
        output.as_json(done)
    else:
        verb = "Tried again" if decision == "retry" else "Discarded"
        typer.echo(f"{verb}: {len(done) - refused:,}; refused: {refused:,}.")
    if refused:
        raise typer.Exit(Code.REFUSED)


async def _each(
    client: Any,
    decision: Decision,
    ids: list[str],
    wanted: Filter,
    why: str,
    by: str,
    rate: float,
) -> Any:
    from processors.client import Rejected
    from processors.dead_letters import Decided, Unknown, decide, decide_many, show

    if not ids:
        async for one in decide_many(client, wanted, decision, why, by, rate):
            yield one
        return
    for name in ids:
        try:
            letter = await show(client.pool, name)
        except Unknown as error:
            raise NotFound(str(error)) from None
        try:
            await decide(client, letter, decision, why, by)
            yield Decided(letter)
        except Rejected as refused:
            yield Decided(letter, refused.problem)


def _filter(
    status: str,
    kind: str | None,
    tenant: str | None,
    reason: str | None,
    subject: str | None,
    older: str | None,
    newer: str | None,
) -> Filter:
    from processors.dead_letters import KINDS, Filter

    if status not in ("open", "retried", "discarded", "all"):
        raise typer.BadParameter("--status is open, retried, discarded or all")
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"--kind is {', '.join(KINDS)}")
    return Filter(
        None if status == "all" else status,  # type: ignore[arg-type]
        kind,
        tenant,
        reason,
        subject,
        _ago(newer, "--newer-than"),
        _ago(older, "--older-than"),
    )


def _ago(age: str | None, option: str) -> datetime | None:
    """The time so long ago."""
    if age is None:
        return None
    if not (found := AGE.fullmatch(age)):
        raise typer.BadParameter(f"{option} is a number and s, m, h or d, such as 15m, not {age!r}")
    return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Failed("Say who decides: --by.", Code.USAGE) from None
