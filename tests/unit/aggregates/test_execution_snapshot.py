"""An execution's state is written down and read back, also as older engines wrote it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    CompensateTask,
    ProvideInput,
    RetryExecution,
    SignalExecution,
)
from aggregates.execution_state import Execution
from tests.executions import CHAIN, NO_DELAY, ONE, ask, begin, done, fail, start
from tests.flows import flow
from tests.spec import ROOT, after
from tests.trips import BOOKED, ENDED, PARKED, TRIP, UNPAID

ALWAYS = {
    "workflow_id",
    "revision",
    "digest",
    "status",
    "limit",
    "phase",
    "task_status",
    "attempts",
    "agents",
    "outputs",
}


def restored(state: Execution, found: Any) -> Execution:
    return EXECUTION.load(ROOT, orjson.loads(orjson.dumps(EXECUTION.dump(state))), found)


def same(one: Execution, other: Execution) -> bool:
    return all(
        sorted(getattr(one, name)) == sorted(getattr(other, name))
        if name == "ready"
        else getattr(one, name) == getattr(other, name)
        for name in Execution.__slots__
    )


def test_what_is_true_of_few_executions_is_written_of_few():
    """A snapshot has a row for every execution that changed."""
    assert EXECUTION.dump(after(start(CHAIN), done("a")).state).keys() == ALWAYS


@pytest.mark.parametrize("given", [0, 0.0, "", False, [], {}, {"a": 1}, "text"])
def test_an_input_comes_back_as_it_was(given):
    live = after(start(ONE, input=given, timeout_seconds=3.0)).state
    again = restored(live, ONE)
    assert (again.input, type(again.input)) == (given, type(given))
    assert again.timeout_seconds == 3.0


GATED = flow(a=[], b={"wait_for": "go"}, c=["b"], policy=NO_DELAY)


@pytest.mark.parametrize(
    "so_far",
    [
        after(start(GATED), begin("a", delivery=5)),
        after(start(GATED), ask("a"), SignalExecution("go"), SignalExecution("other")),
        after(start(GATED), ask("a"), ProvideInput("a", 1), ask("a", 2)),
        after(start(GATED), fail("a", retryable=False)),
        after(start(GATED), fail("a", retryable=False), RetryExecution(inputs={"b": [1]})),
    ],
)
def test_a_restored_execution_waits_for_what_the_live_one_waits_for(so_far):
    """I13."""
    assert same(so_far.state, restored(so_far.state, GATED))


@pytest.mark.parametrize(
    "so_far",
    [
        after(*BOOKED),
        UNPAID,
        UNPAID.when(CompensateTask("hotel")).so(),
        PARKED,
        ENDED,
        after(*BOOKED, CancelExecution("x")),
    ],
)
def test_a_restored_execution_undoes_what_the_live_one_undoes(so_far):
    """I9, I13."""
    assert same(so_far.state, restored(so_far.state, TRIP))
    order = [TRIP.plan.ids[task] for task in restored(so_far.state, TRIP).undoing.order]
    assert order == ["car", "hotel"]


def test_a_snapshot_from_before_undoing_was_known_is_undone_in_the_order_of_the_phases():
    """F47: nobody knows the true order any more; no task is undone before what follows it."""
    found = flow(
        late={"compensation_action": "undo", "depends_on": ["early"]},
        early={"compensation_action": "undo"},
        end=["late"],
    )
    data = EXECUTION.dump(after(start(found), done("early"), done("late")).state)
    del data["order"]
    assert data.keys() == ALWAYS
    state = EXECUTION.load(ROOT, data, found)
    assert [found.plan.ids[task] for task in state.undoing.order] == ["early", "late"]


def test_the_end_forgets_what_only_a_retry_would_need():
    """One held execution costs about 40 bytes a task; inputs may be large."""
    found = flow(a=[], b=[])
    failed = after(start(found, input="x"), done("a", output=1), fail("b", retryable=False)).state
    assert (failed.input, failed.outputs) == ("x", {0: 1})
    cancelled = after(start(found, input="x"), done("a", output=1), CancelExecution()).state
    completed = after(start(found, input="x"), done("a", output=1), done("b")).state
    for state in (cancelled, completed):
        assert (state.input, state.outputs, state.inputs) == (None, {}, {})
