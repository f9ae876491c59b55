"""The closest match: all that is needed and as little besides as possible.

Who can do more is kept for those tasks that need it. Among equal matches the least loaded goes
first.
"""

from __future__ import annotations

from collections.abc import Sequence

from processors.allocation.candidate import Candidate, free, relative_load
from processors.allocation.need import Need


def choose(candidates: Sequence[Candidate], need: Need, last: str) -> Candidate | None:
    """The one with the fewest capabilities that are not needed."""
    return min(free(candidates, need), key=lambda one: _key(one, need, last), default=None)


def _key(one: Candidate, need: Need, last: str) -> tuple[int, float, bool, str]:
    return (len(one.capabilities), relative_load(one, need), one.agent <= last, one.agent)
