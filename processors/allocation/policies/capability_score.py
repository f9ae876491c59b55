"""The closest match: all that is needed and as little besides as possible.

Who can do more is kept for those tasks that need it. Among equal matches the least loaded goes
first.
"""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, fullness, in_turn
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The one with the fewest capabilities that are not needed."""
    full = fullness(need)
    able = in_turn(candidates, need, last)
    return min(able, key=lambda one: (len(one.capabilities), full(one)), default=None)
