"""`orchestrator submit`: workflows into the engine, and an execution of each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from processors.cli import output
from processors.cli.exits import Code, run
from processors.cli.publish import json_option
from processors.cli.validate import sources_of

if TYPE_CHECKING:
    from processors.cli.submitting import Submitted

ANSWER_S = 30.0  # for one outcome; the waiting for the end has its own limit


def submit(
    file: str = typer.Argument(help="JSON or YAML, also .gz or a list; `-` is standard input."),
    given: str = typer.Option(
        "null", "--input", help="The executions' input, JSON; @FILE or @- reads it."
    ),
    wait: bool = typer.Option(False, "--wait/--no-wait", help="Wait until they have ended."),
    timeout: float | None = typer.Option(
        None, min=0.1, help="Give up waiting after so many seconds (they go on)."
    ),
    deadline: float | None = typer.Option(
        None, min=0.1, help="An execution that has not ended after so many seconds fails."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print ids and statuses as JSON."),
) -> None:
    """Create a workflow from a file and start an execution of it.

    With --wait the exit code is 0 only when everything completed.

    Example:  orchestrator submit workflow.yaml --input '{"topic": "tides"}' --wait
    """
    value = json_option(given, "--input")
    sources = sources_of(file)

    async def work() -> tuple[list[Submitted], bool]:
        from processors.cli.engine import publishing
        from processors.cli.submitting import await_ends, submit_all

        async with publishing() as client:
            submitted = await submit_all(client, sources, value, ANSWER_S, deadline_s=deadline)
            if not wait:
                return submitted, False
            # Not wait_for: what it cancels may be a query, whose time-out looks like ours.
            waiting = asyncio.create_task(await_ends(client, submitted))
            done, _ = await asyncio.wait({waiting}, timeout=timeout)
            if not done:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return submitted, True
            waiting.result()
            return submitted, False

    submitted, timed_out = run(work, as_json=as_json)
    _show(submitted, as_json)
    bad = [one for one in submitted if one.status not in ("executing", "completed")]
    for one in bad:
        output.error(f"{one.label} {one.status}: {one.reason}")
    if bad:
        raise typer.Exit(Code.REFUSED)
    if timed_out:
        left = sum(one.status == "executing" for one in submitted)
        output.error(f"{left} of {len(submitted)} executions had not ended in {timeout:g} s.")
        raise typer.Exit(Code.TIMED_OUT)


def _show(submitted: list[Submitted], as_json: bool) -> None:
    if as_json:
        described = [one.described() for one in submitted]
        output.as_json(described[0] if len(described) == 1 else described)
        return
    lines = [
        (one.label, one.workflow_id, one.execution_id, one.status)
        for one in submitted
        if one.execution_id is not None
    ]
    if lines:
        output.rows(("file", "workflow", "execution", "status"), lines)
