"""A backlog of commands to drain: answers of agents to executions that run, made once and reused.

Real commands to the real decider: `start` makes one event of each (StartTask), `complete` makes
three (TaskStarted, TaskCompleted, and the next TaskScheduled).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
from uuid_utils import uuid7

from processors import commands
from processors.bench.graphs import fan_out
from processors.client import Client
from streams.bus import Bus
from streams.codec import encode_command
from streams.message import Command
from streams.partition import commands_key, partition_of

TASKS_MAX = 1_000  # of one execution
AGENT = "agent-of-the-bench"
OUTPUT = {"ok": True}

SHAPES = {"start": 1, "complete": 3}
"""How many events each command makes."""


@dataclass(slots=True)
class Backlog:
    """The commands of each partition in order, and the executions that they are for."""

    shape: str
    partitions: int
    document: dict[str, Any]
    workflow_id: str
    executions: list[str]
    messages: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def commands(self) -> int:
        """How many there are in all."""
        return sum(map(len, self.messages.values()))

    @property
    def events(self) -> int:
        """How many events they make."""
        return self.commands * SHAPES[self.shape]

    async def set_up(self, client: Client) -> None:
        """Create the workflow and start the executions."""
        create = commands.create_workflow(definition=self.document, workflow_id=self.workflow_id)
        await client.call(create)
        async with asyncio.TaskGroup() as calls:
            for execution_id in self.executions:
                start = commands.start_execution(self.workflow_id, execution_id=execution_id)
                calls.create_task(client.call(start))

    async def fill(self, bus: Bus) -> None:
        """Put the commands aside in Redis."""
        for partition, messages in self.messages.items():
            await bus.append({_aside(partition): messages})

    async def release(self, bus: Bus) -> None:
        """Let them appear where the engine reads, all at once."""
        async with bus.redis.pipeline(transaction=True) as pipe:
            for partition in self.messages:
                pipe.rename(_aside(partition), commands_key(partition))
            await pipe.execute()


def make_backlog(shape: str, size: int, partitions: int) -> Backlog:
    """About so many commands, evenly over all partitions; executions take turns in each."""
    runs = max(1, round(size / partitions / TASKS_MAX))  # of each partition
    tasks = max(1, size // (partitions * runs))
    document = fan_out(tasks, at_once=tasks if shape == "start" else 1)
    made = Backlog(shape, partitions, document, str(uuid7()), [])
    for partition in range(partitions):
        ids = ids_of(partition, partitions)
        own = [next(ids) for _ in range(runs)]
        made.executions += own
        made.messages[partition] = [
            _command(shape, execution_id, f"t{task}")
            for task in range(tasks)
            for execution_id in own
        ]
    return made


def ids_of(partition: int, partitions: int) -> Iterator[str]:
    """Fresh ids that belong to a partition."""
    for _ in count():
        found = str(uuid7())
        if partition_of(found, partitions) == partition:
            yield found


def _command(shape: str, execution_id: str, task: str) -> bytes:
    data: dict[str, Any] = {"task": task, "attempt": 1, "agent": AGENT}
    kind = "StartTask"
    if shape == "complete":
        kind = "CompleteTask"
        data |= {"output": OUTPUT, "started_at": "2026-01-01T00:00:00.000000Z"}
    return encode_command(Command(str(uuid7()), kind, "execution", execution_id, data, actor=AGENT))


def command_id(message: bytes) -> str:
    """The id of an encoded command."""
    found: str = orjson.loads(message)["id"]
    return found


def _aside(partition: int) -> str:
    return f"backlog:{{{partition}}}"
