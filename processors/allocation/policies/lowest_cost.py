"""The cheapest that has room; among equally cheap ones the least loaded."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, free, relative_load
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The cheapest."""
    return min(
        free(candidates, need),
        key=lambda one: (one.cost, relative_load(one, need), one.agent <= last, one.agent),
        default=None,
    )
