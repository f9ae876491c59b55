"""What a plan comes to, in numbers, for people and programs."""

from __future__ import annotations

from typing import Any

from aggregates.plan import Plan


def summary(drawn: Plan) -> dict[str, Any]:
    """The plan as JSON-able data: tasks, phases, and the critical path."""
    return {
        "name": drawn.definition.name,
        "version": drawn.definition.version,
        "pattern": drawn.definition.orchestration_pattern,
        "digest": drawn.definition.digest,
        "roles": list(drawn.roles),
        "tasks": len(drawn.ids),
        "edges": drawn.edges,
        "phases": drawn.phases,
        "widest_phase": max(drawn.phase_sizes, default=0),
        "critical_path": {
            "seconds": round(drawn.critical_path_seconds, 6),
            "tasks": drawn.critical_path_tasks,
            "ids": list(drawn.critical_path),
        },
    }
