"""`orchestrator partitions`: who owns which partition, and how far behind it is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output
from processors.cli.exits import run

if TYPE_CHECKING:
    from processors.standings import Standings

LOOK_S = 0.25  # between two looks for a beat
OWNER_CHARS = 40  # of a worker's name; --json has it whole


def partitions(
    quick: bool = typer.Option(False, help="Do not wait to see who is alive."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as JSON."),
) -> None:
    """Show every partition's owner, epoch, head, position and lag, for each consumer.

    Who is alive is told by a beat, so this looks until all have been seen to beat, and for a lease
    (AGENTCORE_LEASE_S, 5) where somebody does not. It needs PostgreSQL only, not a running engine.

    Example:  orchestrator partitions --json | jq '[.partitions[].lag] | add'
    """
    told = run(lambda: _look(quick), as_json=as_json)
    output.as_json(told) if as_json else _show(told)


async def _look(quick: bool) -> dict[str, Any]:
    import asyncio

    from processors.cli.engine import reading
    from processors.settings import read_settings
    from processors.standings import standings

    loop = asyncio.get_running_loop()
    async with reading() as log:
        first = now = await standings(log)
        until = loop.time() + read_settings().lease_s
        while not quick and loop.time() < until and not _all_beat(first, now):
            await asyncio.sleep(LOOK_S)
            now = await standings(log)
        return _told(first, now, quick)


def _all_beat(first: Standings, now: Standings) -> bool:
    """Whether every member that is there now has beaten since the first look."""
    return all(first.members.get(member) != beat for member, beat in now.members.items())


def _told(first: Standings, now: Standings, quick: bool) -> dict[str, Any]:
    def alive(consumer: str, member: str | None) -> bool | None:
        beat = now.members.get((consumer, member or ""))
        if beat is None:  # whoever works is a member
            return False
        return None if quick else first.members.get((consumer, member or "")) != beat

    shares = Counter((one.consumer, one.owner) for one in now.partitions)
    return {
        "partitions": [
            one._asdict() | {"alive": alive(one.consumer, one.owner)} for one in now.partitions
        ],
        "members": [
            {
                "consumer": consumer,
                "member": member,
                "alive": alive(consumer, member),
                "partitions": shares[consumer, member],
            }
            for consumer, member in sorted(now.members)
        ],
    }


def _show(told: dict[str, Any]) -> None:
    rows = told["partitions"]
    if not rows:
        typer.echo("No worker has run on this database yet; `orchestrator up` starts one.")
        return
    columns = ("consumer", "partition#", "owner", "alive", "epoch#", "head#", "position#", "lag#")
    lines = [tuple(_cell(row, name) for name in map(_name, columns)) for row in rows]
    output.rows(columns, [*lines, *_totals(rows)])
    alive = Counter(one["consumer"] for one in told["members"] if one["alive"] is not False)
    for consumer in dict.fromkeys(row["consumer"] for row in rows):
        names = [one for one in told["members"] if one["consumer"] == consumer]
        shares = ", ".join(f"{_short(one['member'])} has {one['partitions']}" for one in names)
        typer.echo(
            f"{consumer}: {alive[consumer]} of {len(names)} members alive"
            + (f": {shares}" if shares else "")
        )


def _name(column: str) -> str:
    return column.removesuffix("#")


def _cell(row: dict[str, Any], name: str) -> Any:
    value = row[name]
    if name == "owner":
        return "nobody" if value is None else _short(value)
    if name == "alive":
        return "?" if value is None else "yes" if value else "no"
    return value


def _short(owner: str) -> str:
    """Host and process; what follows only makes it unique."""
    parts = owner.rsplit("-", 5)
    return (parts[0] if len(parts) == 6 else owner)[:OWNER_CHARS]


def _totals(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """A line a consumer: how many owned and alive, and the sums."""
    lines = []
    for consumer in dict.fromkeys(row["consumer"] for row in rows):
        those = [row for row in rows if row["consumer"] == consumer]
        owned = sum(row["owner"] is not None for row in those)
        sums = [sum(row[name] for row in those) for name in ("head", "position", "lag")]
        lines.append((consumer, "all", f"{owned} of {len(those)} owned", "", "", *sums))
    return lines
