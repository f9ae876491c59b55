"""An agent as a candidate for a task, and what keeps it from getting one; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from processors.allocation.need import Need

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


@dataclass(slots=True, eq=False)
class Candidate:
    """One agent of one live host, as far as we know; `own` are the tasks that we have given it.

    `others` is what it does besides, by what its host said last.
    """

    agent: str
    host: str
    tenant: str
    roles: frozenset[str]
    capabilities: frozenset[str] = frozenset()
    capacity: int = 1
    cost: float = 0.0
    region: str | None = None
    circuit: str = CLOSED
    status: str = "active"
    silent: bool = False
    lost: bool = False
    reason: str = ""
    own: int = 0
    others: int = 0
    peak: int = 0
    """The most of `own` since its host's last word but one: its word may be that old."""

    @property
    def load(self) -> int:
        """How many tasks it has."""
        return self.own + self.others

    def read_again(self, card: Candidate) -> None:
        """Take over what its card says now."""
        self.tenant, self.roles, self.capabilities = card.tenant, card.roles, card.capabilities
        self.capacity, self.cost, self.region = card.capacity, card.cost, card.region


Choose = Callable[[Sequence[Candidate], Need, str], Candidate | None]
"""A policy: of these candidates for one role, who gets the next task; None: nobody can take it.

The text is the agent that was chosen last for such a task, "" at first: equals take turns.
"""


def limit(one: Candidate, need: Need) -> int:
    """How many tasks of such a need it does at once; one at a time while it is on trial."""
    if one.circuit == HALF_OPEN:
        return 1
    return min(one.capacity, need.max_concurrency or one.capacity)


def obstacle(one: Candidate, need: Need) -> str | None:
    """What keeps this candidate from getting such a task now; None: nothing."""
    if one.lost:
        return "lost"
    if one.status != "active":
        return one.status
    if one.circuit == OPEN:
        return "circuit open"
    if one.silent:
        return "silent"
    if not need.capabilities <= one.capabilities:
        return "without the capabilities"
    return "full" if one.load >= limit(one, need) else None


def free(candidates: Sequence[Candidate], need: Need) -> list[Candidate]:
    """Who could take such a task now; only those of its region, where there are any."""
    able = [one for one in candidates if obstacle(one, need) is None]
    if need.region is not None:
        return [one for one in able if one.region == need.region] or able
    return able


def relative_load(one: Candidate, need: Need) -> float:
    """How full it is, from 0 to 1."""
    return one.load / limit(one, need)


def why_waiting(role: str, candidates: Sequence[Candidate], need: Need) -> str | None:
    """Why a task of the role gets no agent now, in one sentence; None where one could take it."""
    if not candidates:
        return f"No live agent serves the role {role!r}."
    counted = Counter(obstacle(one, need) for one in candidates)
    if counted[None]:
        return None
    parts = ", ".join(f"{count} {what}" for what, count in sorted(counted.items(), key=str))
    known = next((one.reason for one in candidates if one.reason), "")
    said = f"No agent of the role {role!r} can take a task: {parts}."
    return f"{said} The first says: {known}" if known else said
