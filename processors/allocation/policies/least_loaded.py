"""Who has the least to do for its capacity gets the task; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, free, relative_load
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The least loaded."""
    return min(
        free(candidates, need),
        key=lambda one: (relative_load(one, need), one.agent <= last, one.agent),
        default=None,
    )
