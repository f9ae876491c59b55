"""`orchestrator replay`: what an execution's state was, folded from its stored events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output
from processors.cli.exits import Code, NotFound, run

if TYPE_CHECKING:
    from processors.moments import Moment

TASKS_SHOWN = 40


def replay(
    execution: str = typer.Argument(help="The execution's id."),
    at: str | None = typer.Option(
        None, metavar="POSITION|TIME", help="Up to this position or time (ISO 8601, UTC)."
    ),
    check: bool = typer.Option(
        False, "--check", help="Compare with the read models; exit 1 on a difference."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the state as JSON."),
) -> None:
    """Fold an execution's events and show its state then: the audit's answer, not the read model's.

    Example:  orchestrator replay EXECUTION --at 2026-01-31T12:00:00Z
    """
    if check and at is not None:
        raise typer.BadParameter("--check compares the present; leave --at out")
    moment = _moment(at)

    async def fold() -> tuple[dict[str, Any], list[str]]:
        from processors.cli.checks import differences
        from processors.cli.engine import reading
        from processors.moments import Unheard, state_at

        async with reading() as log:
            try:
                found = await state_at(log, execution, moment)
            except Unheard as error:
                raise NotFound(str(error)) from None
            return found, await differences(log, found) if check else []

    state, wrong = run(fold, as_json=as_json)
    if as_json:
        output.as_json(state | ({"differences": wrong} if check else {}))
    else:
        _show(state)
    for difference in wrong:
        output.error(f"The read model differs: {difference}.")
    if wrong:
        raise typer.Exit(Code.REFUSED)
    if check and not as_json:
        typer.echo("The read models say the same.")


def _moment(at: str | None) -> Moment:
    from processors.moments import Moment

    if at is None:
        return Moment()
    if at.isdecimal():
        return Moment(position=int(at))
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        raise typer.BadParameter(
            f"--at is a position or a time such as 2026-01-31T12:00Z: {at!r}"
        ) from None
    return Moment(time=time if time.tzinfo else time.replace(tzinfo=UTC))


def _show(state: dict[str, Any]) -> None:
    counts = ", ".join(f"{n:,} {name}" for name, n in state["counts"].items())
    output.facts(
        [
            ("execution", state["execution_id"]),
            ("workflow", f"{state['workflow_id']} in revision {state['revision']}"),
            ("status", state["status"]),
            ("phase", f"{state['phase']} of {state['phases']}"),
            ("tasks", counts),
            ("as of", f"{state['time']}, partition {state['partition']}/{state['position']}"),
            ("events", state["events"]),
        ]
    )
    # What is under way says most, so it comes first.
    order = {name: n for n, name in enumerate(("running", "scheduled", "failed", "cancelled"))}
    tasks = sorted(state["tasks"], key=lambda task: order.get(task["status"], len(order)))
    output.rows(
        ("task", "status", "attempt#", "agent"),
        [tuple(task.values()) for task in tasks[:TASKS_SHOWN]],
    )
    if len(tasks) > TASKS_SHOWN:
        output.note(f"… {len(tasks) - TASKS_SHOWN:,} more tasks; --json lists all.")
