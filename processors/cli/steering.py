"""`orchestrator pause`, `resume`, `cancel`, `signal`, `answer`, `retry`: a hand on an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from processors.cli import output
from processors.cli.exits import run
from processors.cli.publish import described, json_option, sentence

if TYPE_CHECKING:
    from streams.message import Command

ANSWER_S = 30.0

Execution = Annotated[str, typer.Argument(help="The execution's id.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]


def pause(execution: Execution, reason: Reason = "", as_json: AsJson = False) -> None:
    """Schedule nothing new in an execution; what runs may finish, and nothing is lost.

    Example:  orchestrator pause 0190… --reason "the bill is checked first"
    """
    from processors.commands import pause_execution

    _tell(pause_execution(execution, reason), as_json)


def resume(execution: Execution, reason: Reason = "", as_json: AsJson = False) -> None:
    """Go on with a paused execution.

    Example:  orchestrator resume 0190…
    """
    from processors.commands import resume_execution

    _tell(resume_execution(execution, reason), as_json)


def cancel(execution: Execution, reason: Reason = "", as_json: AsJson = False) -> None:
    """End an execution; completed tasks that have a compensation are undone first.

    Example:  orchestrator cancel 0190… --reason "ordered twice"
    """
    from processors.commands import cancel_execution

    _tell(cancel_execution(execution, reason), as_json)


def signal(
    execution: Execution,
    name: Annotated[str, typer.Argument(help="What has happened, as `wait_for` names it.")],
    data: Annotated[
        str, typer.Option(help="What the waiting tasks are told, JSON; @FILE or @- reads it.")
    ] = "null",
    as_json: AsJson = False,
) -> None:
    """Tell an execution that something has happened: an approval, a delivery, an alarm.

    Example:  orchestrator signal 0190… approved --data '{"by": "ada"}'
    """
    from processors.commands import signal_execution

    _tell(signal_execution(execution, name, json_option(data, "--data")), as_json)


def answer(
    execution: Execution,
    task: Annotated[str, typer.Argument(help="The task that waits for input.")],
    value: Annotated[str, typer.Argument(help="The answer, JSON; @FILE or @- reads it.")],
    as_json: AsJson = False,
) -> None:
    """Answer a task that has asked for input; `orchestrator explain` shows what it asked.

    Example:  orchestrator answer 0190… review '{"verdict": "ship it"}'
    """
    from processors.commands import provide_input

    _tell(provide_input(execution, task, json_option(value, "VALUE")), as_json)


def retry(
    execution: Execution,
    task: Annotated[
        str | None, typer.Option(help="The task to begin from; else every one that failed.")
    ] = None,
    given: Annotated[
        str | None,
        typer.Option("--input", help="Another input for --task, JSON; @FILE or @- reads it."),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Try again to undo --task, whose undoing was parked.")
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Go on with a failed execution where it failed, if need be with another input.

    Example:  orchestrator retry 0190… --task convert --input '{"format": "png"}'
    """
    from processors.commands import retry_compensation, retry_execution

    if task is None and (undo or given is not None):
        raise typer.BadParameter("say which task with --task")
    if undo:
        if given is not None:
            raise typer.BadParameter("an undoing takes no --input")
        _tell(retry_compensation(execution, str(task), reason), as_json)
        return
    inputs = None if given is None else {str(task): json_option(given, "--input")}
    _tell(retry_execution(execution, task=task, inputs=inputs, reason=reason), as_json)


def _tell(command: Command, as_json: bool) -> None:
    """Publish, wait for the outcome, print it."""

    async def send() -> dict[str, object]:
        from processors.cli.engine import publishing

        async with publishing() as client:
            return described(await client.call(command, ANSWER_S))

    outcome = run(send, as_json=as_json)
    output.as_json(outcome) if as_json else typer.echo(sentence(outcome))
