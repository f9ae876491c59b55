"""What is known about an execution and those that could move it; plain values, no I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class OpenTask:
    """A task that has not ended; `since` is when it came into its status.

    `status` is scheduled, running, waiting (for input) or pending; `not_before` is set where a
    retry waits for its delay, `wait_for` where a pending task waits for a signal that has not come.
    """

    task: str
    status: str
    role: str
    attempt: int
    since: datetime
    agent: str | None = None
    not_before: datetime | None = None
    timeout_s: float | None = None
    prompt: Any = None
    wait_for: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Service:
    """Who serves a role; None where Redis could not be asked.

    `able` agents could take a task now; where none can, `why` says what is in the way, and `busy`
    whether it is only that all have enough to do. `queued` entries wait in the role's stream.
    """

    registered: int = 0
    able: int | None = None
    busy: bool = False
    why: str | None = None
    queued: int | None = None


@dataclass(slots=True)
class Reader:
    """One consumer of the execution's partition: who owns it, whether that lives, and how far."""

    consumer: str
    owner: str | None
    alive: bool
    lag: int


@dataclass(slots=True)
class Undoing:
    """A compensation under way or over: task ids."""

    left: list[str] = field(default_factory=list)
    compensated: list[str] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    under_way: str | None = None


@dataclass(slots=True)
class Facts:
    """All that the findings are drawn from; times are UTC."""

    execution_id: str
    status: str
    now: datetime
    partition: int
    last_event: str
    last_time: datetime
    tasks: int
    completed: int
    reason: str | None = None
    actor: str | None = None
    since: datetime | None = None
    open: list[OpenTask] = field(default_factory=list)
    roles: dict[str, Service] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    undoing: Undoing | None = None
    parked_for: list[str] = field(default_factory=list)
    redis_error: str | None = None
