"""`orchestrator up`: an engine on this machine, in the foreground."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from processors.cli import output
from processors.cli.exits import explained, run

if TYPE_CHECKING:
    from processors.settings import Addresses, Settings


def up(
    agents: int = typer.Option(
        0, min=0, help="Also start so many simulated agents for every role that shows up."
    ),
    factor: float = typer.Option(
        0.0, min=0.0, help="Simulated tasks sleep their `duration` times this."
    ),
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Where the API answers (AGENTCORE_API_PORT, 8002); 0 is any."
        ),
    ] = None,
    api: bool = typer.Option(True, "--api/--no-api", help="Serve the HTTP interface."),
    data: Annotated[
        Path | None, typer.Option(help="Data directory of the embedded servers (AGENTCORE_HOME).")
    ] = None,
) -> None:
    """Run the engine here until Ctrl-C: servers, schema, processors, the API; then exit 0.

    Without DATABASE_URL and REDIS_URL it brings its own PostgreSQL and Redis, whose data is still
    there the next time. Other commands on this machine find it by themselves.

    Example:  orchestrator up --agents 2   and elsewhere   orchestrator submit workflow.yaml --wait
    """
    with explained(), ExitStack() as stack:
        from processors.cli.logs import configure_quiet
        from processors.keys import SEALING_OFF, kms_of, with_kek
        from processors.local_engine import servers
        from processors.running import announce, home
        from processors.settings import read_settings

        settings = read_settings()
        if port is not None:
            settings = settings.model_copy(update={"api_port": port})
        if api:
            from processors.api.server import listen

            listen(settings.api_host, settings.api_port).close()  # before anything is started
        configure_quiet(settings.log_level)
        directory = data.expanduser().absolute() if data else home(settings)
        if settings.auth == "none":
            output.without_tokens()
        if settings.addresses is None:
            output.note(f"Starting PostgreSQL and Redis in {directory} …")
        addresses = stack.enter_context(servers(settings, directory))
        if settings.addresses is None:
            stack.enter_context(announce(directory, addresses))
        settings = with_kek(settings, directory)
        if kms_of(settings) is None:
            output.warning(SEALING_OFF)
        run(lambda: _stay(settings, addresses, agents, factor, api), stop_is_success=True)


async def _stay(
    settings: Settings, addresses: Addresses, agents: int, factor: float, api: bool
) -> None:
    from processors.local_engine import processes

    pool = ("agents", ("agents", "--per-role", str(agents), "--factor", str(factor)))
    gateway = ("api", ("api", "--host", settings.api_host, "--port", str(settings.api_port)))
    more = ([gateway] if api else []) + ([pool] if agents else [])
    try:
        async with processes(settings, addresses, more=more, report=output.note) as supervisor:
            _greet(settings, addresses, agents)
            await supervisor.failed()
    except asyncio.CancelledError:
        output.note("Stopped.")
        raise


def _greet(settings: Settings, addresses: Addresses, agents: int) -> None:
    # Embedded servers answer on this machine only, and whoever reads this may use them; the
    # passwords of given servers are not repeated.
    if settings.addresses is None:
        typer.echo(
            "The engine is up. Other commands on this machine find it by themselves; for psql and"
            " your own programs:\n"
            f"  export DATABASE_URL='{addresses.database_url}'\n"
            f"  export REDIS_URL='{addresses.redis_url}'"
        )
    else:
        typer.echo(f"The engine is up, with {addresses!r}.")
    hint = "" if agents else "    (it waits for agents; `up --agents 2` simulates some)"
    typer.echo(
        f"Next:\n"
        f"  orchestrator submit workflow.yaml --wait{hint}\n"
        f"  orchestrator status\n"
        f"  psql \"$DATABASE_URL\" -c 'TABLE executions'\n"
        f"Ctrl-C stops everything; the data stays."
    )
