"""One after the other, in the order of their ids, whatever they have to do."""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, in_turn
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The next one after the last that can take it."""
    return next(iter(in_turn(candidates, need, last)), None)
