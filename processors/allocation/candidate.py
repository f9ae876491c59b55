"""An agent as a candidate for a task, and what keeps it from getting one; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from processors.allocation.need import Need

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

_id = attrgetter("agent")


@dataclass(slots=True, eq=False)
class Candidate:
    """One agent of one live host, as far as we know; `own` are the tasks that we have given it.

    `others` is what it does besides, by what its host said last. `barred` is what keeps it from
    all work, None where nothing does, and `most` how many tasks it does at once: both follow from
    the rest, see `judge`.
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
    barred: str | None = field(init=False, default=None)
    most: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.judge()

    @property
    def load(self) -> int:
        """How many tasks it has."""
        return self.own + self.others

    def read_again(self, card: Candidate) -> None:
        """Take over what its card says now."""
        self.tenant, self.roles, self.capabilities = card.tenant, card.roles, card.capabilities
        self.capacity, self.cost, self.region = card.capacity, card.cost, card.region

    def judge(self) -> None:
        """Draw the conclusions from what has changed; an agent on trial gets one task at a time."""
        self.most = 1 if self.circuit == HALF_OPEN else self.capacity
        if self.lost:
            self.barred = "lost"
        elif self.status != "active":
            self.barred = self.status
        elif self.circuit == OPEN:
            self.barred = "circuit open"
        else:
            self.barred = "silent" if self.silent else None


Choose = Callable[[Sequence[Candidate], Need, str], Candidate | None]
"""A policy: of these candidates for one role, who gets the next task; None: nobody can take it.

They come in the order of their ids. The text is the agent that was chosen last for such a task, ""
at first: equals take turns.
"""


def limit(one: Candidate, need: Need) -> int:
    """How many tasks of such a need it does at once."""
    return one.most if need.max_concurrency is None else min(one.most, need.max_concurrency)


def obstacle(one: Candidate, need: Need) -> str | None:
    """What keeps this candidate from getting such a task now; None: nothing."""
    if one.barred is not None:
        return one.barred
    if not need.capabilities <= one.capabilities:
        return "without the capabilities"
    return "full" if one.load >= limit(one, need) else None


def in_turn(candidates: Sequence[Candidate], need: Need, last: str) -> list[Candidate]:
    """Who could take such a task now, those after the last one first.

    Where any are in the region that is preferred, only those. (It is gone through for every task
    and every candidate of the role, so `obstacle` is said once more, in short.)
    """
    asked = need.capabilities
    able = [
        one
        for one in candidates
        if one.barred is None and one.own + one.others < one.most and asked <= one.capabilities
    ]
    if need.max_concurrency is not None:
        able = [one for one in able if one.load < limit(one, need)]
    if need.region is not None:
        able = [one for one in able if one.region == need.region] or able
    at = bisect_right(able, last, key=_id)
    return able[at:] + able[:at]


def fullness(need: Need) -> Callable[[Candidate], float]:
    """How to tell how full a candidate is, from 0 to 1."""
    if need.max_concurrency is None:
        return lambda one: (one.own + one.others) / one.most
    return lambda one: one.load / limit(one, need)


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
