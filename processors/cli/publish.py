"""`orchestrator publish`: any command to any aggregate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from processors.cli import output
from processors.cli.exits import run

if TYPE_CHECKING:
    from streams.message import Outcome

DATA_BYTES_MAX = 8 * 1024 * 1024


def publish(
    subject: str = typer.Argument(help="The aggregate: execution/ID, workflow/ID, agent/ID."),
    type_: str = typer.Argument(metavar="TYPE", help="The command: PauseExecution, …"),
    data: str = typer.Option("{}", help="Its data, a JSON object; @FILE or @- reads it."),
    command_id: str | None = typer.Option(
        None, "--id", help="The command's id; a repeat under the same id changes nothing."
    ),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Wait for the outcome."),
    timeout: float = typer.Option(30.0, min=0.1, help="Seconds to wait for it."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Publish one command and print what became of it: the positions of its events, or why not.

    Example:  orchestrator publish execution/0190… PauseExecution --data '{"reason": "lunch"}'
    """
    kind, slash, root = subject.partition("/")
    if not (kind and slash and root and root.isprintable()):
        raise typer.BadParameter(f"SUBJECT is kind/id, such as execution/0190…, not {subject!r}")
    parsed = json_option(data, "--data")
    if not isinstance(parsed, dict):
        raise typer.BadParameter("--data must be a JSON object")

    async def send() -> dict[str, Any]:
        from processors.cli.engine import publishing
        from processors.commands import command

        sent = command(kind, root, type_, parsed, command_id)
        async with publishing() as client:
            if not wait:
                await client.publish(sent)
                return {"command": sent.id, "status": "published"}
            return described(await client.call(sent, timeout))

    outcome = run(send, as_json=as_json)
    if as_json:
        output.as_json(outcome)
    else:
        typer.echo(sentence(outcome))


def json_option(text: str, option: str) -> Any:
    """The JSON value of an option: as it stands, or from @FILE, @- being standard input."""
    from streams.strict import Malformed, parse

    try:
        if text == "@-":
            raw = sys.stdin.buffer.read(DATA_BYTES_MAX + 1)
        elif text.startswith("@"):
            with Path(text[1:]).open("rb") as file:
                raw = file.read(DATA_BYTES_MAX + 1)
        else:
            raw = text.encode()
        return parse(raw, bytes_max=DATA_BYTES_MAX)
    except OSError as error:
        raise typer.BadParameter(f"{option} {text}: {error.strerror}") from None
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{option} is not UTF-8") from None
    except Malformed as error:
        raise typer.BadParameter(f"{option}: {error.detail}") from None


def described(outcome: Outcome) -> dict[str, Any]:
    """An accepted outcome as it is printed."""
    return {
        "command": outcome.command_id,
        "status": "accepted",
        "partition": outcome.partition,
        "first": outcome.first,
        "last": outcome.last,
        "repeated": outcome.repeated,
    }


def sentence(outcome: dict[str, Any]) -> str:
    """An outcome, for people."""
    if outcome["status"] == "published":
        return f"Published {outcome['command']}; nobody waited for its outcome."
    if outcome["last"] < outcome["first"]:
        return f"Accepted; it changed nothing (partition {outcome['partition']})."
    positions = f"{outcome['first']} to {outcome['last']}"
    again = " (answered before: this is the first outcome)" if outcome["repeated"] else ""
    return f"Accepted: partition {outcome['partition']}, positions {positions}{again}."
