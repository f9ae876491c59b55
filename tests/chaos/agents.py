"""Agents as the zygote's child: they do what a task's metadata says, honestly or not.

`metadata.do` may say: {"sleep_s": 0.2, "fail_first": 2, "fatal": true, "crash_first": 1,
"hang_first": 1, "twice": true, "late": true, "ask": true, "undo_fail_first": 1,
"undo_fatal": true}.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
from redis.exceptions import RedisError

from processors.agents import Agent, AgentHost, Assignment, TaskError
from processors.agents.answers import NeedInput
from tests.chaos import moments
from tests.chaos.told import Teller, configure_logs, stop_event

LIES_S = 0.3  # after the honest answer has gone
HANG_S = 30.0


async def main(told: dict[str, Any]) -> None:
    """Serve the roles until SIGTERM."""
    directory, logged = Path(told["dir"]), Counter[str]()
    configure_logs(logged)
    trap = moments.Trap(directory)
    moments.plant(trap)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, trap.arm)
    stop, doing = stop_event(), Doing(told["name"])
    host = AgentHost(
        told["redis_url"],
        [
            Agent(f"{told['name']}-{role}", (role,), doing, capacity=told["capacity"])
            for role in told["roles"]
        ],
        name=told["name"],
        lease_s=told["lease_s"],
    )
    doing.host = host

    def counts() -> dict[str, Any]:
        return {
            **dataclasses.asdict(host.counts),
            "read_errors": host._reader.errors,
            "lies": doing.lies,
            "said": logged,
        }

    teller = Teller(directory, counts)
    async with host:
        beating = asyncio.create_task(teller.beating(ready=True))
        await stop.wait()
        beating.cancel()
    teller.tell(ready=True, ended=True)


class Doing:
    """The handler of all agents here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host: AgentHost | None = None
        self.lies = 0
        self._lying: set[asyncio.Task[None]] = set()

    def __call__(self, assignment: Assignment) -> Any:
        """At once where nothing takes time, so that hundreds a second cost little."""
        do = assignment.metadata.get("do") or {}
        if assignment.kind == "compensation":
            return self._undo(assignment, do)
        if do.get("twice") or (do.get("late") and assignment.attempt > 1):
            lie = asyncio.create_task(self._lie(assignment, do))
            self._lying.add(lie)
            lie.add_done_callback(self._lying.discard)
        if do.get("sleep_s") or assignment.attempt <= do.get("hang_first", 0):
            return self._slowly(assignment, do)
        return self._answer(assignment, do)

    async def _slowly(self, assignment: Assignment, do: dict[str, Any]) -> Any:
        await asyncio.sleep(do.get("sleep_s", HANG_S))
        return self._answer(assignment, do)

    def _answer(self, assignment: Assignment, do: dict[str, Any]) -> Any:
        if assignment.attempt <= do.get("fail_first", 0):
            raise TaskError("not yet")
        if assignment.attempt <= do.get("crash_first", 0):
            raise ZeroDivisionError("a bug in an agent")
        if do.get("fatal"):
            raise TaskError("never", retryable=False)
        if do.get("ask") and assignment.answer is None:
            raise NeedInput("really?")
        return {"task": assignment.task_id}

    @staticmethod
    def _undo(assignment: Assignment, do: dict[str, Any]) -> Any:
        if assignment.attempt <= do.get("undo_fail_first", 0):
            raise TaskError("not undone yet")
        if do.get("undo_fatal"):
            raise TaskError("cannot be undone", retryable=False)
        return {"undone": assignment.task_id}

    async def _lie(self, assignment: Assignment, do: dict[str, Any]) -> None:
        """What no honest agent says: for an attempt that is over, or in another's name."""
        await asyncio.sleep(LIES_S + do.get("sleep_s", 0))
        said = []
        if do.get("twice"):
            said.append((assignment.attempt, "somebody-else", assignment.tenant))
            said.append((assignment.attempt, "somebody-else", "intruders"))
        if do.get("late"):
            said.append((assignment.attempt - 1, f"{self.name}-{assignment.role}", "default"))
        for attempt, agent, tenant in said:
            raw = orjson.dumps(
                {
                    "specversion": "1.0",
                    "id": f"lie/{assignment.message_id}/{attempt}/{self.name}/{self.lies}",
                    "source": "chaos",
                    "type": "CompleteTask",
                    "subject": f"execution/{assignment.execution_id}",
                    "tenant": tenant,
                    "actor": agent,
                    "data": {
                        "task": assignment.task_id,
                        "attempt": attempt,
                        "agent": agent,
                        "output": "a lie",
                    },
                }
            )
            assert self.host is not None
            try:
                await self.host.bus.redis.xadd(assignment.reply_to, {"message": raw})
                self.lies += 1
            except RedisError:
                pass  # a lie that nobody hears harms nobody
