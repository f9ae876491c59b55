"""A task in hand, from its first delivery to its answer; and what a host counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from processors.agents.agent import Role
from processors.agents.wire import Assignment

Key = tuple[bytes, bytes]
"""An entry by its stream and its id."""


@dataclass(slots=True)
class Counts:
    """What a host has done since it began."""

    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    repeated: int = 0
    refused: int = 0
    asked: int = 0
    """Tasks that need input."""
    poisoned: int = 0
    """Tasks that were delivered too often."""
    vanished: int = 0
    """Entries that were deleted before they were settled; the engine asks again."""
    taken: int = 0
    """Entries taken over from hosts that show no life."""
    lost: int = 0
    """Tasks that another host took over while this one was stopped."""
    withdrawn: int = 0
    """Tasks whose answers nobody wants any more."""
    handed_back: int = 0
    """Tasks that went back to their role's stream, for others."""


@dataclass(slots=True, eq=False)
class Work:
    """A task in hand; its entries, each with how often Redis has handed it out."""

    assignment: Assignment
    message_id: str
    role: Role
    entries: dict[Key, int]
    delivery: int
    since: float
    """When it was certain last that the entries are this host's."""
    agent_id: str = ""
    began: float = 0.0
    started_at: str = ""
    task: asyncio.Future[Any] | None = None
    deadline: asyncio.TimerHandle | None = None
    answered: bool = False
