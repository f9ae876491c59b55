"""Who has the least to do for its capacity gets the task; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, fullness, in_turn
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The least loaded."""
    return min(in_turn(candidates, need, last), key=fullness(need), default=None)
