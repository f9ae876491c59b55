"""`bench crew` (not listed): the agents of a measurement, in a process of their own.

Each notes when it got a task, on the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from processors.access.own import Shown, shown
from processors.access.principal import Role
from processors.agents import Agent, AgentHost, Assignment, register
from processors.cli.exits import run
from processors.commands import deregister_agent
from processors.keys import keyring_of
from processors.running import find
from processors.settings import read_settings
from processors.worker import GC_ALLOCATIONS
from streams.bus import Bus, BusUnavailable
from streams.codec import encode_command, stamped
from streams.logs.postgres import PostgresLog
from streams.partition import COMMANDS_INBOX

FLUSH_S = 0.05  # notes are written this long after the first of them, all together
GRACE_S = 0.3  # nobody misses a task of a measurement that has ended

Note = tuple[str, str, int, int]
"""Execution, task, the agent's number, and the nanosecond at which it had the task."""


@dataclass(slots=True)
class Notebook:
    """What the agents of this process note, written to a file in batches: a JSON list a line."""

    file: Path
    _notes: list[Note] = field(default_factory=list)

    def add(self, assignment: Assignment, agent: int) -> None:
        """An agent has a task."""
        if not self._notes:
            asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        now = time.monotonic_ns()
        self._notes.append((assignment.execution_id, assignment.task_id, agent, now))

    def _flush(self) -> None:
        notes, self._notes = self._notes, []
        with self.file.open("ab") as file:
            file.write(orjson.dumps(notes) + b"\n")


def crew(
    notes: Path,
    roles: list[str],
    agents: Annotated[int, typer.Option(min=1, help="How many, over all hosts.")] = 10,
    hosts: Annotated[int, typer.Option(min=1, help="How many share this process.")] = 1,
    capacity: Annotated[int, typer.Option(min=1, help="Tasks at once, of each agent.")] = 100,
) -> None:
    """Serve roles until told to stop, and note in a file who got which task when."""

    async def work() -> None:
        book, settings = Notebook(notes), read_settings()
        made = [
            Agent(f"{roles[0]}-{n}", tuple(roles), handler(book, n), capacity)
            for n in range(agents)
        ]
        addresses = find(settings)
        log = PostgresLog(addresses.database_url, 1)
        await log.open()
        keys, token = keyring_of(settings, log), shown(settings, roles=[Role.AGENT])
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)
        all_hosts = [
            AgentHost(
                addresses.redis_url,
                made[at::hosts],
                name=f"{roles[0]}-host-{at}",
                keys=keys,
                token=token,
            )
            for at in range(hosts)
        ]
        for host in all_hosts:
            host.start()
        try:
            await register(all_hosts[0].bus, made, await log.partitions(), token)
            await asyncio.gather(*(host.ended() for host in all_hosts))
        finally:
            await _forget(all_hosts[0].bus, made, token)
            await asyncio.gather(*(host.stop(GRACE_S) for host in all_hosts))
            await log.close()

    run(work, stop_is_success=True)


async def _forget(bus: Bus, agents: Sequence[Agent], token: Shown) -> None:
    """The engine need not know them any longer; a deployment that goes on would list them."""
    made = [deregister_agent(agent.agent_id) for agent in agents]
    messages = [stamped(encode_command(command), token()) for command in made]
    with suppress(BusUnavailable):
        await bus.append({COMMANDS_INBOX: messages})


def handler(book: Notebook, number: int) -> Callable[[Assignment], Any]:
    """Notes that it has a task, and answers at once; after `metadata.seconds` where there are."""

    def handle(assignment: Assignment) -> Any:
        book.add(assignment, number)
        seconds = assignment.metadata.get("seconds")
        return asyncio.sleep(seconds) if seconds else None

    return handle
