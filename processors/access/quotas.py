"""How much of the engine one tenant may have: executions that run, agents, events a second.

What is over a quota is answered, and recorded nowhere: the same command may be given again. Only
what begins something new is asked; answers, pauses, cancellations and the engine itself never are.

Counts are those of the read models, and what was decided here beyond their positions. What another
worker decided and no read model shows yet is not in them, so a quota may be passed by as much as
that: a fraction of a second's worth.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from aggregates.agent_messages import AgentDeregistered, AgentRegistered, RegisterAgent
from aggregates.execution_commands import RetryExecution, SignalExecution, StartExecution
from aggregates.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRetried,
    ExecutionStarted,
)
from aggregates.problem import Refused
from aggregates.workflow import CreateWorkflow, ReviseWorkflow
from streams.log import LogUnavailable

LOOK_S = 1.0  # between two looks at the read models
NOTES_MAX = 100_000  # of what they do not show yet; beyond that the oldest are forgotten
TENANTS_MAX = 10_000
DEBT_S_MAX = 60.0  # so long at most has a tenant to wait that has made too many events

EXECUTIONS, AGENTS = "executions", "agents"
ADDS = {StartExecution: EXECUTIONS, RetryExecution: EXECUTIONS, RegisterAgent: AGENTS}
"""What one more of is asked for."""
BEGINNING = frozenset({*ADDS, SignalExecution, CreateWorkflow, ReviseWorkflow})
"""Commands that begin something; their types are asked once each."""
BEGINNING_NAMES = frozenset(kind.__name__ for kind in BEGINNING)
CHANGES = {
    ExecutionStarted: (EXECUTIONS, 1),
    ExecutionRetried: (EXECUTIONS, 1),
    ExecutionCompleted: (EXECUTIONS, -1),
    ExecutionFailed: (EXECUTIONS, -1),
    ExecutionCancelled: (EXECUTIONS, -1),
    AgentRegistered: (AGENTS, 1),
    AgentDeregistered: (AGENTS, -1),
}
COUNTED = frozenset(CHANGES)
KNOWN = ("active", "draining")
"""The statuses of an agent that is one already."""

Seen = tuple[Mapping[str, Mapping[int, int]], Iterable[tuple[str, str, int]]]
"""By kind the position of each partition that its read model shows, and (kind, tenant, count)."""
Look = Callable[[Collection[str]], Awaitable[Seen]]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What every tenant may have; None is no bound."""

    executions: int | None = None
    agents: int | None = None
    events_per_s: float | None = None
    """Of one worker."""


@dataclass(slots=True)
class Quotas:
    """Counts for one command processor; raises Refused where a tenant has all that it may have."""

    limits: Limits
    look: Look
    clock: Callable[[], float] = time.monotonic
    refused: int = 0
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _asked: dict[str, None] = field(default_factory=dict)
    _notes: deque[tuple[str, str, int, int, int]] = field(
        default_factory=lambda: deque(maxlen=NOTES_MAX)
    )
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    _looked: float = float("-inf")
    _looking: asyncio.Task[None] | None = None

    async def ready(self, tenants: Collection[str]) -> None:
        """Have counts for these tenants, hardly older than LOOK_S; raises LogUnavailable."""
        fresh = [tenant for tenant in tenants if tenant not in self._asked]
        if fresh:
            if len(self._asked) + len(fresh) > TENANTS_MAX:
                self._asked.clear()
                self._counts.clear()
            self._asked |= dict.fromkeys(fresh)
            try:
                await self._look()
            except BaseException:
                for tenant in fresh:
                    self._asked.pop(tenant, None)
                raise
        elif self.clock() - self._looked >= LOOK_S and (
            self._looking is None or self._looking.done()
        ):
            self._looking = asyncio.create_task(self._look_again(), name="quotas")

    def over(self, tenant: str, typed: Any, held: Any) -> Refused | None:
        """Why this tenant may not begin this now (OVER_QUOTA), or None; `held` is the aggregate."""
        limits, kind = self.limits, ADDS.get(type(typed))
        if limits.events_per_s is not None and self._level(tenant) < 0:
            return self._refusal(f"makes more than {limits.events_per_s:,g} events a second")
        if kind == EXECUTIONS:
            most = limits.executions
            if most is not None and self._counts.get((kind, tenant), 0) >= most:
                return self._refusal(f"has {most:,} executions under way, as many as it may")
        elif kind == AGENTS:
            most = limits.agents
            if most is None or held.state.status in KNOWN:
                return None
            if self._counts.get((kind, tenant), 0) >= most:
                return self._refusal(f"has {most:,} agents, as many as it may")
        return None

    def _refusal(self, what: str) -> Refused:
        self.refused += 1
        return Refused("OVER_QUOTA", f"The tenant {what}; give the command again later.")

    def note(self, partition: int, position: int, tenant: str, event: Any, before: Any) -> None:
        """One event that changes what a tenant has; `before` is the aggregate's status before."""
        kind, change = CHANGES[type(event)]
        if kind == AGENTS and change > 0 and before in KNOWN:
            return  # it says something else of itself
        self._notes.append((kind, tenant, partition, position, change))
        key = (kind, tenant)
        self._counts[key] = self._counts.get(key, 0) + change

    def forget(self, partition: int, after: int) -> None:
        """What was decided for a partition behind this position was not committed."""
        for _ in range(len(self._notes)):
            note = self._notes.popleft()
            if note[2] != partition or note[3] <= after:
                self._notes.append(note)
                continue
            key = (note[0], note[1])
            self._counts[key] = self._counts.get(key, 0) - note[4]

    def made(self, tenant: str, events: int) -> None:
        """So many events more of a tenant; asked only where there is a bound."""
        rate = self.limits.events_per_s
        if rate is not None:
            level = max(self._level(tenant) - events, -rate * DEBT_S_MAX)
            self._buckets.pop(tenant, None)
            self._buckets[tenant] = (level, self.clock())
            if len(self._buckets) > TENANTS_MAX:  # who made some longest ago has a full one by now
                del self._buckets[next(iter(self._buckets))]

    def _level(self, tenant: str) -> float:
        rate = self.limits.events_per_s or 0.0
        level, since = self._buckets.get(tenant, (rate, 0.0))
        return min(rate, level + (self.clock() - since) * rate)

    async def _look(self) -> None:
        looked = self.clock()
        shown, rows = await self.look(tuple(self._asked))
        counts = {(kind, tenant): count for kind, tenant, count in rows}
        kept = [one for one in self._notes if one[3] > shown.get(one[0], {}).get(one[2], 0)]
        self._notes.clear()
        self._notes.extend(kept)
        for kind, tenant, _, _, change in kept:
            counts[kind, tenant] = counts.get((kind, tenant), 0) + change
        self._counts, self._looked = counts, looked

    async def _look_again(self) -> None:
        try:
            await self._look()
        except LogUnavailable as error:
            logger.warning("quotas_not_counted", error=str(error))
