"""The engine as deployed, for a measurement: workers and agents as processes, a client here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from processors import commands
from processors.bench.drive import Driver
from processors.bench.ends import Ends
from processors.bench.measure import OURSELVES
from processors.bench.notes import Notes
from processors.client import Client
from processors.local_engine import WORKERS
from processors.settings import Addresses, read_settings
from processors.supervisor import Supervisor

CREW, CLIENT = "agents", "client"
READY_S_MAX = 60.0  # of processes that start on a busy machine


@dataclass(frozen=True, slots=True)
class How:
    """What is started for a measurement."""

    workers: int = 1
    """How many processes decide and dispatch; 0 leaves that, and the projector's work, to others
    that run already."""
    projector: bool = True
    agents: int = 10
    capacity: int = 100
    hosts: int = 1

    def children(self) -> list[tuple[str, tuple[str, ...]]]:
        """The engine's processes, by name with their arguments."""
        (engine, deciding), *others = WORKERS
        made = [
            (engine if n == 1 else f"{engine} {n}", deciding) for n in range(1, self.workers + 1)
        ]
        return made + ([*others] if self.projector and self.workers else [])


@dataclass(slots=True)
class Deployed:
    """An engine that runs."""

    addresses: Addresses
    client: Client
    ends: Ends
    notes: Notes
    role: str
    supervisor: Supervisor

    @property
    def processes(self) -> dict[str, int | None]:
        """The ids of what we started, and ourselves."""
        return {**self.supervisor.pids, CLIENT: OURSELVES}

    async def driver(self, document: dict[str, Any]) -> Driver:
        """Create a workflow; answers when the engine is up."""
        create = commands.create_workflow(definition=document)
        await self.client.call(create, READY_S_MAX)
        return Driver(self.client, self.ends, create.root, len(document["tasks"]))


@asynccontextmanager
async def deployed(
    addresses: Addresses, how: How, roles: Sequence[str] = ()
) -> AsyncIterator[Deployed]:
    """Everything started, on a migrated database; whoever ends early fails the measurement.

    The agents serve these roles, and else one that nobody has had before.
    """
    role = f"bench-{uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="agentcore-bench-") as directory:
        notes, logs = Notes(Path(directory, "notes")), Path(directory, "logs")
        async with (
            Supervisor(addresses.environment(), logs, restarts_max=0) as supervisor,
            Client(addresses, "bench", read_settings().at(addresses)) as client,
            Ends(client.log, client.bus) as ends,
        ):
            for name, arguments in [
                *how.children(),
                (CREW, _crew(how, roles or [role], notes.file)),
            ]:
                supervisor.start(name, *arguments)
            measuring = asyncio.current_task()
            assert measuring is not None
            watching = asyncio.create_task(_watch(supervisor, measuring))
            try:
                yield Deployed(addresses, client, ends, notes, role, supervisor)
            except asyncio.CancelledError:
                if watching.done():
                    measuring.uncancel()
                    await watching  # says which process ended, in place of the cancellation
                raise
            finally:
                watching.cancel()


def _crew(how: How, roles: Sequence[str], notes: Path) -> tuple[str, ...]:
    sizes = {"agents": how.agents, "hosts": how.hosts, "capacity": how.capacity}
    options = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    return ("bench", "crew", *options, str(notes), *roles)


async def _watch(supervisor: Supervisor, measuring: asyncio.Task[Any]) -> None:
    """End the measurement when a process ends."""
    try:
        await supervisor.failed()
    except Exception:
        measuring.cancel()
        raise
