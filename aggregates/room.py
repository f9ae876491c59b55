"""What an execution's tasks may take together, beside their number: processors and memory.

A role says what one of its tasks takes. Nothing passes a task that does not fit, so a large one
never starves; that each fits by itself is checked at the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aggregates.definitions.model import AgentRequirement, Definition
from aggregates.problem import Refused

EXACT = 1e-9  # three times 0.1 is no more than 0.3


@dataclass(slots=True)
class Room:
    """Limits, in processors and MiB (None: none), and the tasks in flight by role."""

    max_cpu: float | None
    max_memory: float | None
    taken: dict[str, int] = field(default_factory=dict)

    def enter(self, role: str) -> None:
        """A task of this role is in flight."""
        self.taken[role] = self.taken.get(role, 0) + 1

    def leave(self, role: str) -> None:
        """A task of this role is not in flight any more."""
        self.taken[role] -= 1
        if not self.taken[role]:
            del self.taken[role]

    def fits(
        self,
        needs: Mapping[str, AgentRequirement],
        entering: Iterable[str],
        leaving: str | None = None,
    ) -> bool:
        """Whether tasks of these roles may be in flight as well, without the one that leaves."""
        counts = dict(self.taken)
        for role in entering:
            counts[role] = counts.get(role, 0) + 1
        if leaving is not None:
            counts[leaving] -= 1
        cpu = sum(needs[role].cpu * count for role, count in counts.items())
        memory = sum(needs[role].memory * count for role, count in counts.items())
        return _within(cpu, self.max_cpu) and _within(memory, self.max_memory)


def room(definition: Definition, max_cpu: float | None, max_memory: float | None) -> Room | None:
    """The room that a start asks for, None where it sets no limit; raises Refused."""
    if max_cpu is None and max_memory is None:
        return None
    for name, limit in (("cpu", max_cpu), ("memory", max_memory)):
        if limit is None:
            continue
        if not 0 < limit < float("inf"):
            raise Refused("INVALID_VALUE", f"`max_{name}` is more than 0.", f"/max_{name}")
        for role in {task.agent_role for task in definition.tasks}:
            takes = getattr(definition.agents[role], name)
            if not _within(takes, limit):
                detail = f"A task of the role {role!r} takes {takes:g} of {name}, and {limit:g} is"
                raise Refused("INVALID_VALUE", f"{detail} all that may be taken.", f"/max_{name}")
    return Room(max_cpu, max_memory)


def stored_room(fields: Any) -> Room | None:
    """The limits that were written down as data, where there were any; nothing is in flight."""
    return None if fields is None else Room(fields["max_cpu"], fields["max_memory"])


def _within(taken: float, limit: float | None) -> bool:
    return limit is None or taken <= limit * (1 + EXACT)
