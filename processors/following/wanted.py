"""What a follower wants to hear: always of one tenant, perhaps only of some things."""

from __future__ import annotations

from dataclasses import dataclass

from processors.following.heard import Heard
from streams.partition import partition_of

FILTER_VALUES_MAX = 100  # of one kind in one subscription


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter; what is left empty does not restrict. All that is said must hold.

    With `workflow` come its own events and those of all its executions, also of later ones.
    """

    tenant: str
    subjects: frozenset[str] = frozenset()
    workflow: str | None = None
    types: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()

    def takes(self, event: Heard) -> bool:
        """Whether an event is wanted; its workflow must be known where one is asked for."""
        return (
            event.tenant == self.tenant
            and (not self.types or event.type in self.types)
            and (not self.subjects or f"{event.kind}/{event.root}" in self.subjects)
            and (self.workflow is None or event.workflow == self.workflow)
            and (not self.agents or event.agent in self.agents)
        )

    def partitions(self, count: int) -> set[int]:
        """Where such events can be."""
        if not self.subjects:
            return set(range(count))
        return {partition_of(subject.partition("/")[2], count) for subject in self.subjects}
