"""`orchestrator migrate`: the schema, brought up to date."""

from __future__ import annotations

import typer

from processors.cli import output
from processors.cli.exits import run


def migrate(as_json: bool = typer.Option(False, "--json", help="Print the steps as JSON.")) -> None:
    """Bring the database's schema up to date; safe to run twice and from several places at once.

    A new database gets AGENTCORE_PARTITIONS partitions (16), for ever.

    Example:  DATABASE_URL=postgresql://… REDIS_URL=redis://… orchestrator migrate
    """
    applied = run(_migrate, as_json=as_json)
    if as_json:
        output.as_json({"applied": applied})
    else:
        typer.echo("\n".join(applied) if applied else "The schema is up to date.")


async def _migrate() -> list[str]:
    from migrations.apply import migrate
    from processors.running import find
    from processors.settings import read_settings

    settings = read_settings()
    return await migrate(find(settings).database_url, settings.partitions, output.note)
