"""Agents that only take their time: for trials, for measurements and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from processors.agents.agent import Agent, Handler
from processors.agents.answers import TaskError
from processors.agents.wire import Assignment
from streams.message import DEFAULT_TENANT

CAPACITY = 100
_DRAWS = 2**32


def simulated_agents(
    roles: Iterable[str],
    per_role: int = 1,
    factor: float = 1.0,
    failure_rate: float = 0.0,
    seed: int = 0,
    capacity: int = CAPACITY,
    tenant: str = DEFAULT_TENANT,
) -> list[Agent]:
    """Agents that work for a task's `metadata.duration` times `factor` seconds; 0: not at all.

    The same seed fails the same attempts.
    """
    handler = _handler(factor, failure_rate, seed)
    return [
        Agent(f"simulated-{role}-{n}", (role,), handler, capacity, tenant)
        for role in roles
        for n in range(1, per_role + 1)
    ]


def _handler(factor: float, failure_rate: float, seed: int) -> Handler:
    def answer(assignment: Assignment) -> dict[str, Any]:
        if failure_rate and _draw(assignment, seed) < failure_rate:
            raise TaskError("The simulated agent fails by chance.")
        return {"task": assignment.task_id}

    async def work(assignment: Assignment, seconds: float) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return answer(assignment)

    def handle(assignment: Assignment) -> Any:
        seconds = assignment.metadata.get("duration", 0) * factor
        return work(assignment, seconds) if seconds > 0 else answer(assignment)

    return handle


def _draw(assignment: Assignment, seed: int) -> float:
    """A number from 0 to below 1, the same for the same attempt."""
    digest = blake2b(f"{seed}/{assignment.message_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) / _DRAWS
