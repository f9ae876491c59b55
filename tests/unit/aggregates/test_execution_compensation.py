"""Undoing what was done when an execution ends early: in reverse order, and once (R31, I9)."""

from __future__ import annotations

import pytest

from aggregates.execution_commands import (
    CancelExecution,
    CompensateTask,
    EndCompensation,
    PauseExecution,
    RetryCompensation,
    TimeOutCompensation,
    TimeOutExecution,
)
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationStarted,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    TaskCancelled,
    TaskCompensated,
    TaskFailed,
    TaskStarted,
)
from aggregates.problem import DETAIL_CHARS_MAX
from tests.executions import (
    ANN,
    BOB,
    NO_DELAY,
    begin,
    done,
    fail,
    late,
    not_undone,
    start,
    undone,
)
from tests.flows import flow
from tests.spec import after
from tests.trips import BOOKED, REASON, TRIP, UNDO, UNPAID, then, undo

# How it begins ----------------------------------------------------------------------------------


def test_a_failed_execution_is_undone_before_it_ends():
    assert UNPAID.happened[-3:] == [
        TaskStarted("pay", 1, ANN),
        TaskFailed("pay", 1, ANN, "no money", False),
        CompensationStarted("failed", REASON, "pay", ["hotel", "car"]),
    ]
    assert (UNPAID.state.status, UNPAID.state.terminal) == ("executing", False)


def test_a_cancelled_execution_is_undone_before_it_ends():
    """F41."""
    after(*BOOKED, begin("pay")).when(CancelExecution("rain")).then(
        TaskCancelled("pay", 1), CompensationStarted("cancelled", "rain", None, ["hotel", "car"])
    )


@pytest.mark.parametrize("before", [(), (PauseExecution(),)])
def test_an_execution_whose_time_is_over_is_undone(before):
    started = after(*BOOKED, *before).when(TimeOutExecution("1 s"))
    started.then(
        TaskCancelled("pay", 1),
        CompensationStarted("failed", "TIMED_OUT: 1 s", None, ["hotel", "car"]),
    )
    assert started.so().state.status == "executing"


def test_a_task_that_nobody_takes_has_the_others_undone():
    """F38."""
    [*_, begun] = after(*BOOKED).when(late("pay", kind="queue")).events
    assert (begun.outcome, begun.task, begun.tasks) == ("failed", "pay", ["hotel", "car"])


def test_only_what_completed_is_undone():
    """I9: not what failed, nor what was cancelled, nor what cannot be undone."""
    begun = after(start(TRIP), done("look"), done("car"), begin("hotel")).when(CancelExecution())
    begun.then(TaskCancelled("hotel", 1), CompensationStarted("cancelled", "", None, ["car"]))


def test_where_nothing_can_be_undone_the_end_comes_at_once():
    after(start(TRIP), done("look")).when(CancelExecution()).then(
        TaskCancelled("hotel", 1), TaskCancelled("car", 1), ExecutionCancelled("")
    )
    [*_, ended] = after(start(TRIP)).when(fail("car", retryable=False)).events
    assert (ended.compensated, ended.not_compensated) == (None, None)


def test_what_completes_is_not_undone():
    completed = after(*BOOKED, done("pay"))
    assert isinstance(completed.happened[-1], ExecutionCompleted)
    completed.when(CompensateTask("car")).refused("NOT_COMPENSATING")
    completed.when(RetryCompensation("car")).refused("NOT_COMPENSABLE")


# How it goes on ---------------------------------------------------------------------------------


def test_tasks_are_undone_one_after_the_other_and_the_end_says_which():
    first = UNPAID.when(CompensateTask("hotel")).then(undo("hotel"))
    second = then(first, undone("hotel", agent=BOB)).when(CompensateTask("car")).then(undo("car"))
    ended = second.when(undone("car")).then(TaskCompensated("car", 1, ANN))
    end = ended.when(EndCompensation()).then(ExecutionFailed(REASON, "pay", ["hotel", "car"], []))
    assert end.state.terminal
    end.when(EndCompensation()).then_nothing()


def test_a_cancelled_execution_ends_cancelled():
    undone_ = then(
        after(*BOOKED, CancelExecution("rain")),
        CompensateTask("hotel"),
        undone("hotel"),
        CompensateTask("car"),
        undone("car"),
    )
    undone_.when(EndCompensation()).then(ExecutionCancelled("rain", ["hotel", "car"], []))


def test_the_order_is_kept_whatever_is_said():
    """I9."""
    UNPAID.when(CompensateTask("car")).refused("OUT_OF_ORDER")
    asked = then(UNPAID, CompensateTask("hotel"))
    asked.when(CompensateTask("car")).refused("OUT_OF_ORDER")
    then(asked, not_undone("hotel")).when(CompensateTask("car")).refused("OUT_OF_ORDER")
    parked = then(asked, not_undone("hotel", retryable=False))
    parked.when(CompensateTask("car")).then(undo("car"))


def test_the_end_comes_when_all_are_undone_or_parked():
    """F40: never silently done."""
    UNPAID.when(EndCompensation()).refused("COMPENSATING")
    asked = then(UNPAID, CompensateTask("hotel"))
    asked.when(EndCompensation()).refused("COMPENSATING")
    then(asked, undone("hotel")).when(EndCompensation()).refused("COMPENSATING")
    after(*BOOKED).when(EndCompensation()).refused("NOT_COMPENSATING")


def test_saying_it_twice_changes_nothing():
    """F7, F30: the process manager asks again after a crash; agents answer again."""
    asked = then(UNPAID, CompensateTask("hotel"))
    asked.when(CompensateTask("hotel")).then_nothing()
    gone = then(asked, undone("hotel"))
    for again in (CompensateTask("hotel"), undone("hotel"), RetryCompensation("hotel")):
        gone.when(again).then_nothing()
    failed = then(asked, not_undone("hotel"))
    failed.when(not_undone("hotel")).then_nothing()
    failed.when(CompensateTask("hotel")).then_nothing()
    parked = then(failed, not_undone("hotel", 2))
    parked.when(not_undone("hotel", 2)).then_nothing()
    parked.when(CompensateTask("hotel")).then_nothing()


def test_only_the_attempt_under_way_is_answered_for():
    """F35."""
    UNPAID.when(undone("hotel")).refused("LATE_ANSWER")
    asked = then(UNPAID, CompensateTask("hotel"))
    asked.when(undone("hotel", 2)).refused("LATE_ANSWER")
    asked.when(undone("look")).refused("NOT_COMPENSABLE")
    asked.when(undone("z")).refused("UNKNOWN_TASK")
    asked.when(undone("hotel", agent="")).refused("INVALID_VALUE", "/agent")
    failed = then(asked, not_undone("hotel"))
    failed.when(undone("hotel")).refused("LATE_ANSWER")
    failed.when(not_undone("hotel", agent=BOB)).refused("LATE_ANSWER")
    gone = then(asked, undone("hotel"))
    gone.when(undone("hotel", agent=BOB)).refused("NOT_YOURS")
    gone.when(not_undone("hotel")).refused("LATE_ANSWER")
    gone.when(not_undone("hotel", agent=BOB)).refused("NOT_YOURS")
    after(*BOOKED).when(undone("hotel")).refused("NOT_COMPENSABLE")


def test_only_what_can_be_undone_is():
    UNPAID.when(CompensateTask("look")).refused("NOT_COMPENSABLE")
    UNPAID.when(CompensateTask("z")).refused("UNKNOWN_TASK")
    after(*BOOKED).when(CompensateTask("hotel")).refused("NOT_COMPENSATING")


# How it fails -----------------------------------------------------------------------------------


def test_undoing_is_tried_again_by_the_tasks_policy_and_then_parked():
    """F40, R31."""
    asked = then(UNPAID, CompensateTask("hotel"))
    again = asked.when(not_undone("hotel")).then(
        CompensationFailed("hotel", 1, ANN, "no", True), undo("hotel", 2)
    )
    parked = again.when(not_undone("hotel", 2, BOB, "never")).then(
        CompensationFailed("hotel", 2, BOB, "never", False),
        CompensationParked("hotel", 2, "never"),
    )
    ended = then(parked, CompensateTask("car"), undone("car"))
    ended.when(EndCompensation()).then(ExecutionFailed(REASON, "pay", ["car"], ["hotel"]))


def test_undoing_waits_between_attempts_as_the_task_does():
    found = flow(a=UNDO, b=["a"], policy={"initial_backoff_seconds": 10, "jitter": False})
    asked = after(start(found), done("a"), CancelExecution(), CompensateTask("a"))
    assert asked.when(not_undone("a")).events[-1] == undo("a", 2, delay_ms=10_000)


@pytest.mark.parametrize(("error", "retryable"), [("no", False), ("Fatal: so", True)])
def test_what_no_retry_can_mend_is_parked_at_once(error, retryable):
    found = flow(a=UNDO, b=["a"], policy={**NO_DELAY, "non_retryable_errors": ["Fatal"]})
    asked = after(start(found), done("a"), CancelExecution(), CompensateTask("a"))
    asked.when(not_undone("a", error=error, retryable=retryable)).then_kinds(
        CompensationFailed, CompensationParked
    )


def test_undoing_that_takes_too_long_has_failed():
    """F40, R33."""
    asked = then(UNPAID, CompensateTask("hotel"))
    again = asked.when(TimeOutCompensation("hotel", 1, "60 s")).then(
        CompensationFailed("hotel", 1, None, "TIMED_OUT: 60 s", True), undo("hotel", 2)
    )
    again.when(TimeOutCompensation("hotel", 1)).then_nothing()
    again.when(undone("hotel")).refused("LATE_ANSWER")
    again.when(not_undone("hotel")).refused("LATE_ANSWER")
    again.when(TimeOutCompensation("hotel", 2)).then_kinds(CompensationFailed, CompensationParked)
    for so_far in (UNPAID, after(*BOOKED), then(asked, undone("hotel"))):
        so_far.when(TimeOutCompensation("hotel", 1)).then_nothing()
    UNPAID.when(TimeOutCompensation("look", 1)).then_nothing()
    UNPAID.when(TimeOutCompensation("z", 1)).refused("UNKNOWN_TASK")


def test_a_long_error_is_parked_in_short():
    asked = then(UNPAID, CompensateTask("hotel"))
    failed, parked = asked.when(not_undone("hotel", error="x" * 5_000, retryable=False)).events
    assert (len(failed.error), len(parked.error)) == (5_000, DETAIL_CHARS_MAX)
