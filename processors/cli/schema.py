"""`orchestrator schema`: what travels, for machines."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Print descriptions of the interfaces, for machines.")


@app.command("asyncapi")
def asyncapi() -> None:
    """Print the AsyncAPI 3 description of all streams and WebSockets, as JSON.

    Example:  orchestrator schema asyncapi > asyncapi.json
    """
    from processors.asyncapi.document import written

    typer.echo(written(), nl=False)
