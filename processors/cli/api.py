"""`orchestrator api`: the HTTP interface in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from processors.cli import output
from processors.cli.exits import run


def api(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Listen here (AGENTCORE_API_PORT, 8002); 0 is any."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Of this address (AGENTCORE_API_HOST, 127.0.0.1).")
    ] = None,
    openapi: Annotated[
        bool, typer.Option("--openapi", help="Only print the OpenAPI document.")
    ] = False,
) -> None:
    """Serve the HTTP interface until told to stop.

    As many as you like run beside each other. Exits 0 when it was told to stop.

    Example:  orchestrator api --port 8080
    """

    async def work() -> None:
        from processors.api.server import serve
        from processors.cli.logs import configure
        from processors.running import find
        from processors.settings import read_settings

        settings = read_settings()
        given = {"api_port": port, "api_host": host}
        settings = settings.model_copy(
            update={name: value for name, value in given.items() if value is not None}
        )
        configure(settings.log_level)
        if settings.auth == "none":
            output.without_tokens()
        await serve(settings, find(settings), lambda url: typer.echo(f"The API answers at {url}"))

    if openapi:
        _print_document()
        return
    run(work, stop_is_success=True)


def _print_document() -> None:
    from processors.api.app import make_app
    from processors.api.openapi import written
    from processors.settings import Addresses, read_settings

    app = make_app(read_settings(), Addresses("", ""))
    typer.echo(written(app), nl=False)
