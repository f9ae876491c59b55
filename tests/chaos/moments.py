"""Moments at which a child can be hit, by name: the step boundaries of the engine's loops.

The engine knows nothing of them: the child wraps the methods that lie at each boundary, so that
they cost nothing in production. A method that is renamed fails here at once and loudly.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from processors.agents.desk import Desk
from processors.command_processor import CommandProcessor
from processors.inbox import Inbox
from processors.mirroring import Mirroring
from processors.process_manager import ProcessManager
from processors.projector import Projector
from streams.bus import Bus
from streams.logs.postgres import PostgresLog

WORKER_MOMENTS = (
    "after the read",
    "before the commit",
    "after the commit",
    "in the middle of the mirror",
    "after the mirror",
    "after the replies",
    "before the lease is taken",
    "after the lease was taken",
    "while the state is loaded",
    "before the projection's commit",
    "after the projection's commit",
    "before effects are sent",
    "after effects were sent",
    "between the inbox's move and its acknowledgement",
)
AGENT_MOMENTS = ("between the handler and its answer",)

_moving: ContextVar[bool] = ContextVar("moving", default=False)


class Planted(Exception):
    """Raised at a moment, as a bug there would be."""


class Trap:
    """Hits this process once at the moment that was asked for: kill, stop or raise."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._armed: tuple[str, str] | None = None

    def arm(self) -> None:
        """Read what the parent asks for; called on SIGUSR1 and at the start."""
        path = self._directory / "arm.json"
        if path.exists():
            said = json.loads(path.read_text())
            self._armed = (said["moment"], said["action"]) if said else None

    def waits_for(self, moment: str) -> bool:
        """Whether this moment is the one."""
        return self._armed is not None and self._armed[0] == moment

    def spring(self, moment: str) -> None:
        """Here is the moment: act, if it is the one. What was hit is on record before."""
        if self._armed is None or self._armed[0] != moment:
            return
        action, self._armed = self._armed[1], None
        with (self._directory / "hits").open("a") as hits:
            hits.write(json.dumps([moment, action]) + "\n")
        if action == "raise":
            raise Planted(moment)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[action])


def plant(trap: Trap) -> None:
    """Wrap what lies at the boundaries, in this process."""

    def around(
        owner: type, name: str, before: str = "", after: str = "", always: bool = False
    ) -> None:
        """Spring around a method, where its first argument is not empty."""
        original: Callable[..., Any] = getattr(owner, name)

        async def wrapped(self: Any, *arguments: Any) -> Any:
            real = always or bool(arguments and arguments[0])
            if before and real:
                trap.spring(before)
            result = await original(self, *arguments)
            if after and real:
                trap.spring(after)
            return result

        setattr(owner, name, wrapped)

    around(CommandProcessor, "handle", before="after the read")
    around(PostgresLog, "append", before="before the commit", after="after the commit")
    around(PostgresLog, "take", "before the lease is taken", "after the lease was taken")
    around(PostgresLog, "recent", before="while the state is loaded", always=True)
    around(Projector, "_apply", "before the projection's commit", "after the projection's commit")
    around(ProcessManager, "_send", "before effects are sent", "after effects were sent")
    around(Mirroring, "_send", after="after the replies")
    _mirror(trap)
    _inbox(trap)
    _desk(trap)


def _mirror(trap: Trap) -> None:
    original = Bus.mirror

    async def mirror(self: Bus, shares: Any) -> Any:
        moment = "in the middle of the mirror"
        if trap.waits_for(moment) and (half := _half(shares)):
            await original(self, half)
            trap.spring(moment)
        result = await original(self, shares)
        if shares:
            trap.spring("after the mirror")
        return result

    Bus.mirror = mirror  # type: ignore[method-assign]


def _half(shares: Any) -> list[Any]:
    """About half of what is to be mirrored; nothing where it is a single message."""
    left = sum(len(messages) for _, _, messages in shares) // 2
    half = []
    for partition, first, messages in shares:
        if left > 0:
            half.append((partition, first, messages[:left]))
            left -= len(messages)
    return half


def _inbox(trap: Trap) -> None:
    move, append = Inbox._move, Bus.append

    async def moving(self: Inbox, entries: Any) -> None:
        token = _moving.set(bool(entries))
        try:
            await move(self, entries)
        finally:
            _moving.reset(token)

    async def appending(self: Bus, messages: Any) -> Any:
        result = await append(self, messages)
        if _moving.get() and messages:
            trap.spring("between the inbox's move and its acknowledgement")
        return result

    Inbox._move = moving  # type: ignore[method-assign]
    Bus.append = appending  # type: ignore[method-assign]


def _desk(trap: Trap) -> None:
    original = Desk._answer

    def answer(self: Desk, *arguments: Any) -> None:
        trap.spring(AGENT_MOMENTS[0])
        original(self, *arguments)

    Desk._answer = answer  # type: ignore[method-assign]
