"""What was seen in a run: a fault that never happened proves nothing.

Every name counts something that must be above zero in a whole run, or the run is void.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

WORKER_COUNTS = {
    "fenced": "zombie writes refused",
    "leases_lost": "leases lost",
    "unknown_commits": "unknown commits",
    "repeats": "duplicates",
    "dead_letters": "dead letters",
    "refusals": "commands refused",
    "gaps": "gap fall-backs",
    "mirror_caught_up": "re-mirrored",
    "mirror_already_there": "equal or smaller",
    "mirror_rebuilt": "mirrors begun afresh",
    "mirror_failures": "mirror failures",
    "asked_again": "asked again",
    "inbox_moved": "moved by the inbox",
}
HOST_COUNTS = {
    "repeated": "tasks delivered twice",
    "taken": "tasks taken over",
    "read_errors": "failed reads of tasks",
    "lies": "lies of agents",
}
SAID = {
    "redis_was_replaced": "Redis replaced",
    "maxmemory": "out of memory",
    "NOGROUP": "groups lost",
    "projection_waits": "projections waited",
    "manager_waits": "managers waited",
    "effects_wait": "effects waited",
    "commands_unavailable": "reads failed",
}


class Seen(Counter[str]):
    """Counts by name."""

    def add_child(self, counts: dict[str, Any], hits: list[tuple[str, str]]) -> None:
        """What one process has told."""
        for names in (WORKER_COUNTS, HOST_COUNTS):
            for name, words in names.items():
                self[words] += counts.get(name, 0)
        for name, words in SAID.items():
            self[words] += counts.get("said", {}).get(name, 0)
        for moment, action in hits:
            self[f"{action} {moment}"] += 1

    def missing(self, *names: str) -> list[str]:
        """Those of the names that were never seen."""
        return [name for name in names if not self[name]]


CAMPAIGN = (
    "zombie writes refused",
    "leases lost",
    "unknown commits",
    "duplicates",
    "dead letters",
    "commands refused",
    "gap fall-backs",
    "re-mirrored",
    "asked again",
    "moved by the inbox",
    "tasks taken over",
    "late answers refused",
    "foreign answers refused",
    "reordered commands refused",
    "races of cancel and end",
    "failed attempts",
    "time-outs",
    "clocks that went back",
    "tasks undone",
    "compensations parked",
    "asked for input",
    "executions retried",
    "take-overs",
    "zombies refused",
    "crashes",
    "moves",
    "tasks taken by nobody",
    "sessions ended",
    "Redis replaced",
    "out of memory",
    "replies lost",
    "connections cut",
)
"""What a mixed run must have seen."""
