"""Nobody is chosen: the task goes to its role's stream, and who is free first takes it."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """Nobody."""
    return None
