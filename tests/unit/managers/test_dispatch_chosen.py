"""Dispatch where agents are chosen: what tasks need travels with them, and who has room is told."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    ExecutionFailed,
    InputRequested,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from processors.allocation.need import Need
from processors.managers.dispatch import DISPATCH, RECHECK_S_MAX
from processors.managers.manager import Ask, Recheck, Settled
from tests.flows import ROLE, blueprint, definition, flow
from tests.spec import ROOT, Reacting, after, facts, reacting

PUSHED = blueprint(definition({"a": []}, allocation="round_robin"))
NEED = Need("round_robin")


def scheduled(attempt: int = 1, delay_ms: int = 0) -> TaskScheduled:
    return TaskScheduled("a", attempt, ROLE, 1, 0, delay_ms)


def dispatch(found: Any, *happened: Any) -> Reacting:
    """Dispatch of a workflow, after it has started and then this has happened."""
    start = StartExecution("w")
    start._blueprint = found
    return reacting(DISPATCH, found).given(*facts([after(start).happened[0], *happened]))


def test_a_task_whose_agent_is_chosen_says_what_it_needs():
    """R12: at first, after its delay, and whenever it is looked for."""
    [asked] = dispatch(PUSHED).when(*facts([scheduled()])).effects
    assert isinstance(asked, Ask)
    assert asked.need == NEED
    late = dispatch(PUSHED).when(*facts([scheduled(2, delay_ms=500)])).then_nothing()
    [asked] = late.at(1.0).effects
    assert isinstance(asked, Ask)
    assert asked.need == NEED
    [checked] = late.restored(1.0).at(1.0 + RECHECK_S_MAX).effects
    assert isinstance(checked, Recheck)
    assert checked.need == NEED


@pytest.mark.parametrize(
    "over",
    [
        TaskCompleted("a", 1, "ann"),
        TaskFailed("a", 1, "ann", "no", False),
        InputRequested("a", 1, "ann"),
        ExecutionFailed("why"),
    ],
)
def test_when_a_task_is_over_its_agent_has_room(over):
    """R12: only where agents are chosen: who pulls knows by itself."""
    [settled] = dispatch(PUSHED, scheduled()).when(*facts([over])).effects
    assert isinstance(settled, Settled)
    assert settled.assignment.message_id == f"{ROOT}/a/1"
    dispatch(flow(a=[]), scheduled()).when(*facts([over])).then_nothing()
