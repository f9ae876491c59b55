"""Agents that only take their time, and misbehave if told to: for trials, figures and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any

import structlog

from processors.agents import answers
from processors.agents.agent import Agent
from processors.agents.answers import NeedInput, TaskError
from processors.agents.wire import COMPENSATION, Assignment
from streams.bus import Bus, BusUnavailable
from streams.message import DEFAULT_TENANT

logger = structlog.get_logger(__name__)

CAPACITY = 100
MISDEEDS_MAX = 10_000  # second answers that are under way; beyond that agents behave
_DRAWS = 2**32


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How agents misbehave: shares, from 0 to 1, of the attempts, the same for the same seed.

    Attempts fail (`failures`, of undoing `undo_failures`), take `slow_s` longer (`slow`), or never
    end by themselves (`hanging`). Answers are given twice (`duplicates`), or are contradicted
    `late_s` later (`late`): a failure of what had been completed.
    """

    seed: int = 0
    failures: float = 0.0
    undo_failures: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    hanging: float = 0.0
    duplicates: float = 0.0
    late: float = 0.0
    late_s: float = 1.0

    def draws(self, share: float, what: str, assignment: Assignment) -> bool:
        """Whether this attempt is one of the share."""
        text = f"{self.seed}/{what}{assignment.message_id}"
        digest = blake2b(text.encode(), digest_size=4).digest()
        return int.from_bytes(digest) / _DRAWS < share


def simulated_agents(
    roles: Iterable[str],
    per_role: int = 1,
    factor: float = 1.0,
    failure_rate: float = 0.0,
    seed: int = 0,
    capacity: int = CAPACITY,
    tenant: str = DEFAULT_TENANT,
    *,
    behaviour: Behaviour | None = None,
    bus: Bus | None = None,
    prefix: str = "simulated",
) -> list[Agent]:
    """Agents that work for a task's `metadata.duration` times `factor` seconds; 0: not at all.

    A task with `metadata.ask` asks that once. `behaviour` stands in for `failure_rate` and `seed`;
    answers that come twice or late go through `bus`.
    """
    behaviour = behaviour or Behaviour(seed, failure_rate)
    if bus is None and (behaviour.duplicates or behaviour.late):
        raise ValueError("Agents that answer twice or late need a bus to do so.")
    misdeeds: set[asyncio.Task[None]] = set()

    def agent(role: str, number: int) -> Agent:
        name = f"{prefix}-{role}-{number}"
        handler = _Simulated(name, factor, behaviour, bus, misdeeds).handle
        return Agent(name, (role,), handler, capacity, tenant)

    return [agent(role, n) for role in roles for n in range(1, per_role + 1)]


@dataclass(frozen=True, slots=True)
class _Simulated:
    """One agent."""

    name: str
    factor: float
    behaviour: Behaviour
    bus: Bus | None
    misdeeds: set[asyncio.Task[None]]

    def handle(self, assignment: Assignment) -> Any:
        """The handler: answers at once where nothing takes time."""
        how = self.behaviour
        seconds = assignment.metadata.get("duration", 0) * self.factor
        if how.slow and how.draws(how.slow, "slow/", assignment):
            seconds += how.slow_s
        if how.hanging and how.draws(how.hanging, "hang/", assignment):
            return self._hang()
        return self._work(assignment, seconds) if seconds > 0 else self._answer(assignment)

    async def _hang(self) -> None:
        await asyncio.Event().wait()

    async def _work(self, assignment: Assignment, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        return self._answer(assignment)

    def _answer(self, assignment: Assignment) -> Any:
        how = self.behaviour
        if assignment.kind == COMPENSATION:
            if how.undo_failures and how.draws(how.undo_failures, "", assignment):
                raise TaskError("The simulated agent fails to undo it, by chance.")
            output: dict[str, Any] = {"undone": assignment.task_id}
        else:
            if how.failures and how.draws(how.failures, "", assignment):
                raise TaskError("The simulated agent fails by chance.")
            if "ask" in assignment.metadata and assignment.answer is None:
                return NeedInput(assignment.metadata["ask"])
            output = {"task": assignment.task_id}
        if how.duplicates and how.draws(how.duplicates, "twice/", assignment):
            said = partial(answers.completed, assignment, self.name, output)
            self._do(self._say(assignment, said, 0.0))
        if how.late and how.draws(how.late, "late/", assignment):
            said = partial(answers.failed, assignment, self.name, TaskError("This comes late."))
            self._do(self._say(assignment, said, how.late_s))
        return output

    def _do(self, misdeed: Coroutine[Any, Any, None]) -> None:
        if len(self.misdeeds) >= MISDEEDS_MAX:
            misdeed.close()
            return
        task = asyncio.get_running_loop().create_task(misdeed)
        self.misdeeds.add(task)
        task.add_done_callback(self.misdeeds.discard)

    async def _say(self, assignment: Assignment, said: Any, after_s: float) -> None:
        """An answer beside the host's own, for the first delivery of this assignment."""
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        raw = said(began, assignment.delivery + 1)
        await asyncio.sleep(after_s)
        assert self.bus is not None
        try:
            await self.bus.append({assignment.reply_to: [raw]})
        except BusUnavailable as error:
            logger.info("misdeed_not_done", error=str(error))
