"""`orchestrator worker`: the engine's loops in this process."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from processors.cli import output
from processors.cli.exits import run


class Role(StrEnum):
    """What a worker can do."""

    COMMANDS = "commands"
    MANAGERS = "managers"
    PROJECTIONS = "projections"


def worker(
    only: Annotated[
        list[Role] | None, typer.Option(help="Do only this; may be given more than once.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="Serve /metrics, /live, /ready (AGENTCORE_METRICS_PORT)."
        ),
    ] = None,
) -> None:
    """Decide commands, run process managers and build read models until told to stop.

    As many workers as you like share the partitions between them; one that is stopped (SIGTERM,
    SIGINT) hands its share over at once, one that is killed loses it after a lease
    (AGENTCORE_LEASE_S, 5). Exits 0 when it was told to stop.

    Example:  orchestrator worker --only projections
    """

    async def work() -> None:
        from structlog import get_logger

        from processors.cli.logs import configure
        from processors.keys import SEALING_OFF, kms_of
        from processors.running import find
        from processors.settings import read_settings
        from processors.worker import run_worker

        settings = read_settings()
        if metrics_port is not None:
            settings = settings.model_copy(update={"metrics_port": metrics_port})
        configure(settings.log_level)
        if kms_of(settings) is None:
            get_logger(__name__).warning("sealing_off", cure=SEALING_OFF)
        if settings.auth == "none":
            output.without_tokens()
        await run_worker(settings.at(find(settings)), {role.value for role in only or Role})

    run(work, stop_is_success=True)
