"""What an execution's state was at a moment, folded from its stored events, as JSON-able data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aggregates.execution_state import TASK_STATUSES, Execution
from processors.history import folded
from streams.logs.postgres import PostgresLog
from streams.message import Event


class Unheard(LookupError):
    """There are no events of the execution up to then."""


@dataclass(slots=True)
class Moment:
    """How far to fold: up to a position, up to a time, or everything."""

    position: int | None = None
    time: datetime | None = None

    def includes(self, event: Event) -> bool:
        """Whether the event had happened then."""
        if self.position is not None:
            return event.position <= self.position
        return self.time is None or datetime.fromisoformat(event.time) <= self.time


async def state_at(log: PostgresLog, execution: str, moment: Moment) -> dict[str, Any]:
    """The execution's state at a moment, described; raises Unheard."""
    state, last, count = None, None, 0
    async for event, after in folded(log, execution, moment.includes):
        state, last, count = after, event, count + 1
    if state is None or last is None:
        raise Unheard(f"There are no events of the execution {execution} up to then.")
    return _described(state, last, count)


def _described(state: Execution, last: Event, count: int) -> dict[str, Any]:
    plan = state.plan
    ids = plan.ids if plan else ()
    statuses = [TASK_STATUSES[status] for status in state.task_status]
    return {
        "execution_id": state.id,
        "workflow_id": state.workflow_id,
        "revision": state.revision,
        "status": state.status,
        "phase": state.phase,
        "phases": plan.phases if plan else 0,
        "partition": last.partition,
        "position": last.position,
        "version": last.version,
        "time": last.time,
        "events": count,
        "counts": dict(Counter(statuses)),
        "tasks": [
            {
                "task_id": task_id,
                "status": statuses[task],
                "attempt": state.attempts[task],
                "agent": state.agents.get(task),
            }
            for task, task_id in enumerate(ids)
        ],
    }
