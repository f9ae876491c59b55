"""One execution's story, as tests wait for it: what has happened, and what comes next."""

from __future__ import annotations

from typing import Any

import asyncpg

from processors import commands
from processors.client import Client
from tests.system import checks
from tests.system.engine import Engine, until


async def events(pool: asyncpg.Pool, root: str) -> list[dict[str, Any]]:
    """What has happened to an execution."""
    history = checks.by_subject(await checks.history(pool))
    return history.get(f"execution/{root}", [])


async def kinds(pool: asyncpg.Pool, root: str) -> list[str]:
    """The types of what has happened to an execution."""
    return [event["type"] for event in await events(pool, root)]


async def happened(pool: asyncpg.Pool, root: str, kind: str, times: int = 1) -> dict[str, Any]:
    """Wait until something has happened so many times; returns the last one's data."""

    async def found() -> dict[str, Any] | None:
        of_kind = [event["data"] for event in await events(pool, root) if event["type"] == kind]
        return of_kind[times - 1] if len(of_kind) >= times else None

    return await until(found, f"{times} of {kind}")


async def started(client: Client, document: dict[str, Any], **options: Any) -> str:
    """A fresh execution of a workflow; returns its id."""
    created = commands.create_workflow(definition=document)
    await client.call(created)
    command = commands.start_execution(created.root, **options)
    await client.call(command)
    return command.root


async def withdrawn(on: Engine, times: int) -> None:
    """Wait until so many attempts were withdrawn, which follows on the event that ends them."""

    async def said() -> bool:
        return on.managers.sender.withdrawn == times

    await until(said, f"{times} withdrawals")
