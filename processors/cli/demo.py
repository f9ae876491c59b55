"""`orchestrator demo`: a whole engine, real workflows, simulated agents; then nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from processors.cli import output
from processors.cli.exits import Code, Failed, explained, run
from processors.cli.files import Source
from processors.cli.validate import sources_of

if TYPE_CHECKING:
    from processors.cli.submitting import Submitted
    from processors.cli.summary import Summary
    from processors.settings import Addresses, Settings

ANSWER_S = 120.0  # for one outcome: many large definitions may be ahead in the queue
RESTARTS_MAX = 3  # a process that ends more often will not come up for a demo
EXAMPLES_FACTOR = 1.0  # the examples say durations that are good to watch


@dataclass(slots=True)
class Show:
    """What to run, and how."""

    sources: list[Source]
    roles: list[str]
    factor: float
    agents: int
    as_json: bool
    kept: bool


def demo(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Workflow files (JSON, YAML, .gz, lists); else three examples."),
    ] = None,
    factor: float | None = typer.Option(
        None,
        min=0.0,
        help="Tasks sleep their `duration` times this: 0 is as fast as it goes"
        " (1 for the examples, 0 for files).",
        show_default=False,
    ),
    agents: int = typer.Option(2, min=1, help="Simulated agents for each role."),
    keep: bool = typer.Option(
        False, "--keep", help="Keep the data where `orchestrator up` finds it; else it is deleted."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print only a summary, as JSON."),
) -> None:
    """Run workflows on an engine of its own, show their progress, and shut everything down.

    Brings PostgreSQL and Redis along, or uses those of DATABASE_URL and REDIS_URL. The exit code
    is 0 when everything completed.

    Example:  orchestrator demo   or   orchestrator demo big.json many.json.gz --factor 0.01
    """
    with explained(as_json), ExitStack() as stack:
        from processors.cli.logs import configure_quiet
        from processors.keys import with_kek
        from processors.local_engine import servers
        from processors.running import home
        from processors.settings import read_settings

        sources = [source for file in files or _examples() for source in sources_of(file)]
        if factor is None:
            factor = 0.0 if files else EXAMPLES_FACTOR
        settings = read_settings()
        configure_quiet(settings.log_level)
        kept = keep or settings.addresses is not None
        show = Show(sources, _roles(sources), factor, agents, as_json, kept)
        logs = stack.enter_context(_scratch())
        if settings.addresses is None and not as_json:
            typer.echo("Starting PostgreSQL and Redis …")
        data = home(settings) if keep else logs
        addresses = stack.enter_context(servers(settings, data))
        settings = with_kek(settings, data)
        summary = run(lambda: _play(show, settings, addresses, logs), as_json=as_json)
        if as_json:
            output.as_json(asdict(summary))
        if summary.completed < summary.executions:
            raise typer.Exit(Code.REFUSED)


def _examples() -> list[str]:
    """The files that are shipped; the package may lie in a zip only in theory."""
    from importlib.resources import files

    found = sorted(str(f) for f in files("processors.examples").iterdir() if f.name[0] not in "_.")
    return [name for name in found if name.endswith((".json", ".yaml"))]


def _roles(sources: list[Source]) -> list[str]:
    """Every role that is asked for; a definition that would be refused ends the demo here."""
    return sorted({role for source in sources for role in source.check().agents})


@contextmanager
def _scratch() -> Iterator[Path]:
    """A directory for the processes' logs and, unless it is kept, the servers' data."""
    path = Path(tempfile.mkdtemp(prefix="agentcore-demo-"))
    path.chmod(0o711)  # run by root, PostgreSQL has an account of its own, which has to pass
    try:
        yield path
    finally:
        shutil.rmtree((path / "postgres").resolve(), ignore_errors=True)  # it may lie elsewhere
        shutil.rmtree(path, ignore_errors=True)


async def _play(show: Show, settings: Settings, addresses: Addresses, scratch: Path) -> Summary:
    """Start the processes, run everything on them, and stop them again."""
    from orjson import dumps

    from processors.local_engine import processes

    roles = scratch / "roles.json"
    roles.write_bytes(dumps(show.roles))
    pool = ("agents", "--roles", str(roles), "--name", "demo")
    numbers = ("--per-role", str(show.agents), "--factor", str(show.factor))
    async with processes(
        settings,
        addresses,
        more=[("agents", (*pool, *numbers))],
        log_dir=scratch / "logs",
        restarts_max=RESTARTS_MAX,
    ) as supervisor:
        work = asyncio.create_task(_work(show, addresses, settings), name="demo")
        failure = asyncio.create_task(supervisor.failed(), name="children")
        try:
            await asyncio.wait({work, failure}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                failure.result()
            return await work
        finally:
            for task in (work, failure):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            if not show.as_json:
                typer.echo("Stopping …")


async def _work(show: Show, addresses: Addresses, settings: Settings) -> Summary:
    from processors.cli.live import follow
    from processors.cli.progress import Progress
    from processors.cli.submitting import submit_all
    from processors.cli.summary import summarise
    from processors.client import Client

    async with Client(addresses, "demo", settings) as client:
        progress = Progress(client.log, expected=len(show.sources))

        def started(one: Submitted) -> None:
            if one.execution_id is None:
                raise Failed(f"{one.label} was refused: {one.reason}", problem=one.problem)
            progress.executions.append(one.execution_id)

        submitting = asyncio.create_task(
            submit_all(client, show.sources, None, ANSWER_S, started), name="submit"
        )
        following = asyncio.create_task(follow(progress, quiet=show.as_json), name="follow")
        try:
            done, _ = await asyncio.wait(
                {submitting, following}, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
        finally:
            submitting.cancel()
            following.cancel()
            await asyncio.gather(submitting, following, return_exceptions=True)
        return await summarise(progress, printed=not show.as_json, kept=show.kept)
