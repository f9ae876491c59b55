"""In place of Faust's assignors, which subclass aiokafka's: the leases decide, these report."""

# mypy: disallow-subclassing-any=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

from typing import Any

from faust.types.assignor import LeaderAssignorT, PartitionAssignorT
from mode import Service


class Assignor(PartitionAssignorT):
    """Says what the feeds own; there are no standbys and no tables."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        self.app = app
        self.replicas = replicas

    def group_for_topic(self, topic: str) -> int:
        """All topics are in one group: nothing is co-partitioned by Faust."""
        return 0

    def assigned_actives(self) -> Any:
        """The partitions that this worker owns."""
        return self.app.consumer.assignment()

    def assigned_standbys(self) -> Any:
        """None: the log is the only copy."""
        return set()

    def is_active(self, tp: Any) -> bool:
        """Whether this worker owns a partition."""
        return tp in self.app.consumer.assignment()

    def is_standby(self, tp: Any) -> bool:
        """Never."""
        return False

    def key_store(self, topic: str, key: bytes) -> Any:
        """Tables are not used, so no worker holds a key."""
        raise NotImplementedError("Faust's tables are not used: durable state is the log.")

    def table_metadata(self, topic: str) -> Any:
        """Tables are not used."""
        return {}

    def tables_metadata(self) -> Any:
        """Tables are not used."""
        return {}


class LeaderAssignor(Service, LeaderAssignorT):
    """The worker that owns partition 0 of the first feed leads: one lease, so one leader."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        Service.__init__(self, **kwargs)
        self.app = app

    def is_leader(self) -> bool:
        """Whether this worker leads now (its lease may be lost the moment after)."""
        first = next(iter(self.app.feeds), None)
        return any(tp == (first, 0) for tp in self.app.consumer.assignment())
