"""What tests of agent hosts share: tasks to give, answers to read, handlers that wait."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from processors.agents import Agent, AgentHost, Assignment, encode_assignment
from streams.bus import Bus
from streams.codec import decode_command
from streams.ending import end
from streams.message import Command
from streams.partition import FIELD, commands_key, tasks_key
from tests.processes import ROOT

REPLIES = commands_key(7)
DEADLINE_S = 15.0
LEASE_S = 0.9  # of hosts in other processes
FOR_EVER = -1.0


def task(
    name: str,
    *,
    attempt: int = 1,
    role: str = "r",
    timeout_seconds: float | None = 60.0,
    duration: float = 0.0,
    **more: Any,
) -> Assignment:
    """A task of the execution `e`; `more` are further fields of the assignment."""
    return Assignment(
        execution_id="e",
        task_id=name,
        attempt=attempt,
        role=role,
        tenant="default",
        input={"name": name},
        metadata={"duration": duration},
        timeout_seconds=timeout_seconds,
        reply_to=REPLIES,
        **more,
    )


async def ask(bus: Bus, *tasks: Assignment) -> None:
    """Put tasks into their roles' streams."""
    messages: dict[str, list[bytes]] = {}
    for one in tasks:
        messages.setdefault(tasks_key(one.tenant, one.role), []).append(encode_assignment(one))
    await bus.append(messages)


async def answers(bus: Bus, kind: str | None = None) -> list[Command]:
    """What was answered so far."""
    entries: Any = await bus.redis.xrange(REPLIES)
    commands = [decode_command(values[FIELD]) for _, values in entries]
    return [command for command in commands if kind in (None, command.type)]


async def until(condition: Callable[[], Any]) -> Any:
    """Poll a plain or async condition until it holds."""
    deadline = monotonic() + DEADLINE_S
    while True:
        result = condition()
        if hasattr(result, "__await__"):
            result = await result
        if result:
            return result
        assert monotonic() < deadline, "the deadline has passed"
        await asyncio.sleep(0.01)


async def answered(bus: Bus, count: int, kind: str = "CompleteTask") -> list[Command]:
    """The answers of a kind, once there are so many."""

    async def enough() -> list[Command] | None:
        got = await answers(bus, kind)
        return got if len(got) >= count else None

    got: list[Command] = await until(enough)
    return got


async def settled(bus: Bus, role: str = "r") -> bool:
    """Whether the role's stream is empty and nothing is pending in it."""
    key = tasks_key("default", role)
    pending: Any = await bus.redis.xpending(key, "agents")
    return pending["pending"] == 0 and await bus.redis.xlen(key) == 0


async def kill(host: AgentHost) -> None:
    """End a host as a crash would: nothing is said, nothing is sent."""
    loops, host._loops = host._loops, []
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*(end(loop) for loop in loops))
    for work in host._desk.in_hand.values():
        work.answered = True
        if work.task is not None:
            work.task.cancel()


class Gate:
    """A handler that waits until it is opened, and knows what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.running = 0
        self.most = 0
        self.opened = asyncio.Event()

    async def __call__(self, assignment: Assignment) -> str:
        self.seen.append(assignment.task_id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.opened.wait()
        finally:
            self.running -= 1
        return assignment.task_id


@dataclass
class Child:
    """A host in another process."""

    process: subprocess.Popen[str]

    async def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        said = await asyncio.to_thread(self.process.stdout.readline)
        assert said, "the host has ended"
        told: dict[str, Any] = json.loads(said)
        return told

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.process.pid, number)


@asynccontextmanager
async def child(redis_url: str, name: str, seconds: float) -> AsyncIterator[Child]:
    """A host that listens; killed in the end whatever state it is in."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.host_child", name, str(LEASE_S), str(seconds)],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            made = Child(process)
            await made.line()
            yield made
        finally:
            process.kill()


def heir(gate: Gate, name: str = "heir") -> Agent:
    """Whoever takes over."""
    return Agent(name, ("r",), gate, capacity=100)
