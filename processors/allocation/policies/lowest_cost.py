"""The cheapest that has room; among equally cheap ones the least loaded."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, fullness, in_turn
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The cheapest."""
    full = fullness(need)
    able = in_turn(candidates, need, last)
    return min(able, key=lambda one: (one.cost, full(one)), default=None)
