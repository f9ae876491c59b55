"""How far executions are, as the read models have it, and how fast the log grows."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from processors.cli import sql

if TYPE_CHECKING:
    from streams.logs.postgres import PostgresLog

RATE_S = 2.0  # the rate shown is that of the last so many seconds
ENDED = ("completed", "failed", "cancelled")


class Run(NamedTuple):
    """One execution's row."""

    execution_id: str
    workflow_id: str
    name: str
    status: str
    phase: str
    phases: int
    tasks: int
    completed: int
    running: int
    waiting: int
    failed: int
    attempts_failed: int
    started_at: datetime
    ended_at: datetime | None
    reason: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED

    @property
    def seconds(self) -> float | None:
        """From its first event to its last."""
        if self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(slots=True)
class Progress:
    """What is watched, looked at again and again."""

    log: PostgresLog
    executions: list[str] = field(default_factory=list)
    expected: int = 0
    """How many executions there will be, when all have been submitted."""
    runs: list[Run] = field(default_factory=list)
    events: int = 0
    events_at_start: int | None = None
    began: float = field(default_factory=time.monotonic)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    async def look(self) -> None:
        """Read the rows and the log's length."""
        rows = await self.log.pool.fetch(sql.RUNS, self.executions)
        self.runs = [Run(*row) for row in rows]
        self.events = await self.log.pool.fetchval(sql.EVENTS_IN_ALL)
        if self.events_at_start is None:
            self.events_at_start = self.events
        now = time.monotonic()
        self._seen.append((now, self.events))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_S:
            self._seen.popleft()

    @property
    def seconds(self) -> float:
        """Since the watching began."""
        return time.monotonic() - self.began

    @property
    def new_events(self) -> int:
        """How many events were appended since the watching began."""
        return self.events - (self.events_at_start or 0)

    @property
    def events_per_second(self) -> float:
        """The log's growth of late."""
        if len(self._seen) < 2:
            return 0.0
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / max(last - first, 0.001)

    @property
    def ended(self) -> bool:
        """Whether everything that is watched is there and has ended."""
        return len(self.runs) >= self.expected and all(run.ended for run in self.runs)

    def line(self) -> str:
        """All of it in one line, for where there is no terminal."""
        if not self.runs:
            return f"{self.seconds:6.1f} s  nothing has started yet"
        done = sum(run.ended for run in self.runs)
        tasks = sum(run.tasks for run in self.runs)
        completed = sum(run.completed for run in self.runs)
        running = sum(run.running for run in self.runs)
        failed = sum(run.failed for run in self.runs)
        return (
            f"{self.seconds:6.1f} s  executions {done:,}/{self.expected:,}"
            f"  tasks {completed:,}/{tasks:,}, {running:,} running, {failed:,} failed"
            f"  {self.events_per_second:,.0f} events/s"
        )
