"""A journey that is booked, cannot be paid, and is undone; for tests of compensation."""

from __future__ import annotations

from typing import Any

from aggregates.execution_commands import (
    CompensateTask,
    EndCompensation,
)
from aggregates.execution_events import (
    CompensationScheduled,
)
from tests.executions import (
    NO_DELAY,
    done,
    fail,
    not_undone,
    start,
    undone,
)
from tests.flows import ROLE, flow
from tests.spec import Given, after

UNDO: dict[str, Any] = {"compensation_action": "undo"}
TRIP = flow(
    hotel=UNDO,
    car={**UNDO, "compensation_action": f"{ROLE}/return"},
    look={},
    pay={"depends_on": ["hotel", "car", "look"]},
    policy={**NO_DELAY, "max_attempts": 2},
)
BOOKED = (start(TRIP), done("car"), done("look"), done("hotel"))
REASON = "The task failed in attempt 1: no money"
UNPAID = after(*BOOKED, fail("pay", error="no money", retryable=False))


def undo(task: str, attempt: int = 1, **more: Any) -> CompensationScheduled:
    return CompensationScheduled(task, attempt, ROLE, "return" if task == "car" else "undo", **more)


def then(so_far: Given, *commands: Any) -> Given:
    for command in commands:
        result = so_far.when(command)
        assert result.refusal is None, result.refusal
        so_far = result.so()
    return so_far


PARKED = then(UNPAID, CompensateTask("hotel"), not_undone("hotel", retryable=False))
ENDED = then(PARKED, CompensateTask("car"), undone("car"), EndCompensation())
