"""What people do about tasks that could not be undone, and what is said meanwhile (R31, F41)."""

from __future__ import annotations

import pytest

from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    CompensateTask,
    EndCompensation,
    PauseExecution,
    ProvideInput,
    ResumeExecution,
    RetryCompensation,
    RetryExecution,
    SignalExecution,
    TimeOutCompensation,
    TimeOutExecution,
)
from aggregates.execution_compensation import ATTEMPTS_MAX
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    ExecutionFailed,
    TaskCompensated,
)
from aggregates.problem import Refused
from tests.executions import (
    ANN,
    NO_DELAY,
    done,
    fail,
    late,
    not_undone,
    start,
    undone,
)
from tests.flows import flow
from tests.spec import NOW, after
from tests.trips import BOOKED, ENDED, PARKED, REASON, UNDO, UNPAID, then, undo

# What a person does about it --------------------------------------------------------------------


def test_a_parked_task_is_tried_again_when_a_person_says_so():
    """R31: with all the attempts of the policy."""
    again = PARKED.when(RetryCompensation("hotel", "the hotel is open")).then(undo("hotel", 2))
    again.when(RetryCompensation("hotel")).then_nothing()
    again.when(not_undone("hotel", 1)).refused("LATE_ANSWER")
    third = again.when(not_undone("hotel", 2)).then(
        CompensationFailed("hotel", 2, ANN, "no", True), undo("hotel", 3)
    )
    third.when(not_undone("hotel", 3)).then_kinds(CompensationFailed, CompensationParked)
    gone = then(third, undone("hotel", 3), CompensateTask("car"), undone("car"))
    gone.when(EndCompensation()).then(ExecutionFailed(REASON, "pay", ["hotel", "car"], []))


def test_a_parked_task_that_is_tried_again_holds_up_neither_the_others_nor_the_end():
    again = then(PARKED, RetryCompensation("hotel"), CompensateTask("car"), undone("car"))
    ended = again.when(EndCompensation()).then(ExecutionFailed(REASON, "pay", ["car"], ["hotel"]))
    ended.when(undone("hotel", 2)).refused("LATE_ANSWER")
    ended.when(TimeOutCompensation("hotel", 2)).then_nothing()
    ended.when(RetryCompensation("hotel")).then(undo("hotel", 3))


def test_a_parked_task_is_undone_after_the_end_and_the_end_stays():
    """I8: TaskCompensated may follow the terminal event, and changes no status."""
    assert ENDED.happened[-1] == ExecutionFailed(REASON, "pay", ["car"], ["hotel"])
    again = ENDED.when(RetryCompensation("hotel")).then(undo("hotel", 2))
    gone = again.when(undone("hotel", 2)).then(TaskCompensated("hotel", 2, ANN))
    assert gone.state.status == "failed"
    for nothing in (RetryCompensation("hotel"), EndCompensation(), CancelExecution()):
        gone.when(nothing).then_nothing()
    failed = again.when(not_undone("hotel", 2, retryable=False))
    failed.then_kinds(CompensationFailed, CompensationParked)
    failed.so().when(RetryCompensation("hotel")).then(undo("hotel", 3))


def test_only_a_parked_task_can_be_tried_again():
    UNPAID.when(RetryCompensation("hotel")).then_nothing()
    UNPAID.when(RetryCompensation("look")).refused("NOT_COMPENSABLE")
    UNPAID.when(RetryCompensation("z")).refused("UNKNOWN_TASK")
    after(*BOOKED).when(RetryCompensation("hotel")).refused("NOT_COMPENSABLE")


def test_attempts_to_undo_are_bounded():
    """R22."""
    state = then(PARKED).state
    state.undoing.tasks[0].attempt = ATTEMPTS_MAX - 1
    assert EXECUTION.decide(state, RetryCompensation("hotel"), NOW)
    state.undoing.tasks[0].attempt = ATTEMPTS_MAX
    with pytest.raises(Refused, match="TOO_MANY_ATTEMPTS"):
        EXECUTION.decide(state, RetryCompensation("hotel"), NOW)


# What else may be said meanwhile ----------------------------------------------------------------


@pytest.mark.parametrize("so_far", [UNPAID, then(UNPAID, CompensateTask("hotel")), PARKED])
def test_an_execution_that_is_being_undone_ends_once_and_in_its_way(so_far):
    """F41: cancelled while it is undone, cancelled twice, timed out."""
    for nothing in (
        CancelExecution(),
        TimeOutExecution(),
        CheckExecution(),
        ResumeExecution(),
        SignalExecution("go"),
    ):
        so_far.when(nothing).then_nothing()
    so_far.when(PauseExecution()).refused("COMPENSATING")
    so_far.when(RetryExecution()).refused("NOT_FAILED")
    so_far.when(ProvideInput("pay")).refused("NOT_WAITING")
    so_far.when(done("pay")).refused("LATE_ANSWER")
    so_far.when(late("pay", kind="queue")).then_nothing()


def test_nothing_is_scheduled_any_more():
    found = flow(a=UNDO, b=[], c=["a"], d=[], limit=2)
    begun = after(start(found), done("a"), CancelExecution())
    assert begun.state.ready == []
    begun.when(done("b")).refused("LATE_ANSWER")


def test_what_was_undone_cannot_be_gone_on_with():
    ENDED.when(RetryExecution()).refused("COMPENSATED")


# Undoing by hand --------------------------------------------------------------------------------

BY_HAND = flow(a=UNDO, b=UNDO, c=["a", "b"], policy=NO_DELAY, compensation="manual")
LEFT = after(start(BY_HAND), done("a"), done("b"), fail("c", error="no", retryable=False))


def test_undoing_may_be_left_to_people():
    """All that could be undone counts as parked, and the end says so at once."""
    assert LEFT.happened[-1] == ExecutionFailed(
        "The task failed in attempt 1: no", "c", [], ["b", "a"]
    )
    LEFT.when(CompensateTask("b")).refused("NOT_COMPENSATING")
    LEFT.when(undone("b")).refused("NOT_COMPENSABLE")
    asked = LEFT.when(RetryCompensation("a")).then(undo("a"))
    asked.when(undone("a")).then(TaskCompensated("a", 1, ANN))
    after(start(BY_HAND), done("a"), CancelExecution("x")).when(RetryCompensation("a")).then(
        undo("a")
    )


def test_an_execution_that_nobody_has_undone_yet_can_be_gone_on_with():
    again = LEFT.when(RetryExecution()).so()
    assert again.when(done("c", 2)).so().state.status == "completed"
    then(LEFT, RetryCompensation("a")).when(RetryExecution()).refused("COMPENSATED")
    later = again.when(fail("c", 2, retryable=False)).so()
    assert later.happened[-1].not_compensated == ["b", "a"]
