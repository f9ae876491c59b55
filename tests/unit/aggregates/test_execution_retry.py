"""A failed execution goes on from where it failed, perhaps with other inputs (R11)."""

from __future__ import annotations

import pytest

from aggregates.decider import Reference
from aggregates.definitions.rules import INPUT_BYTES_MAX
from aggregates.definitions.shape import ATTEMPTS_MAX
from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    PauseExecution,
    RetryExecution,
    SignalExecution,
    TimeOutExecution,
)
from aggregates.execution_events import (
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRetried,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
)
from aggregates.execution_start import ATTEMPTS_IN_ALL_MAX
from aggregates.execution_state import PENDING
from aggregates.problem import Refused
from tests.executions import (
    ANN,
    BOB,
    CHAIN,
    NO_DELAY,
    ONE,
    ask,
    begin,
    done,
    fail,
    late,
    scheduled,
    start,
)
from tests.flows import flow
from tests.spec import NOW, after, given

DEAD = {"retryable": False}


def retried(found, *tasks, reason="", **more):
    return ExecutionRetried("w", 1, found.digest, list(tasks), reason, **more)


def test_what_failed_is_tried_again_in_its_next_attempt():
    again = (
        after(start(CHAIN, input=[1], timeout_seconds=9), done("a"), fail("b", **DEAD))
        .when(RetryExecution(reason="mended"))
        .then(
            retried(CHAIN, "b", reason="mended", input=[1], timeout_seconds=9),
            scheduled("b", 2, phase=2),
        )
    )
    assert again.state.status == "executing"
    again.when(fail("b", 1, error="late")).then_nothing()
    again.when(done("b")).refused("LATE_ANSWER")
    again.when(done("b", 2, BOB, "out")).then(
        TaskStarted("b", 2, BOB),
        TaskCompleted("b", 2, BOB, "out"),
        ExecutionCompleted(2, {"b": "out"}),
    )


def test_an_execution_has_a_policy_of_its_own_in_place_of_its_tasks():
    """R11: also after a retry, and where it comes from a snapshot."""
    policy = {"max_attempts": 2, "initial_backoff_seconds": 0, "non_retryable_errors": ["Bad"]}
    once = flow(a=[], b=["a"], policy={"max_attempts": 1})
    so_far = after(start(once, retry_policy=policy))
    assert so_far.happened[0].retry_policy == policy
    so_far.when(fail("a", error="Bad: luck")).so().when(RetryExecution()).then(
        retried(once, "a", retry_policy=policy), scheduled("a", 2)
    )
    loaded = EXECUTION.load("e", EXECUTION.dump(so_far.state), once)
    assert loaded.policy == so_far.state.policy
    so_far.when(fail("a")).then(
        TaskStarted("a", 1, ANN), TaskFailed("a", 1, ANN, "no", True), scheduled("a", 2)
    )


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"max_attempts": 0}, "INVALID_VALUE"),
        ({"attempts": 3}, "UNKNOWN_FIELD"),
        ({"jitter": "much"}, "INVALID_TYPE"),
    ],
)
def test_a_policy_is_checked_as_a_definition_s_is(policy, code):
    where = f"/retry_policy/{next(iter(policy))}"
    given().when(start(ONE, retry_policy=policy)).refused(code, where)


def test_what_was_cancelled_with_it_is_open_again_as_well():
    found = flow(a=[], b=[], c=["a"], d=[], limit=3)
    so_far = after(start(found), begin("a"), done("d"), fail("b", **DEAD))
    again = so_far.when(RetryExecution("b")).then(
        retried(found, "a", "b"),
        scheduled("a", 2),
        scheduled("b", 2),
    )
    for answer in (begin, done, fail):
        again.when(answer("a")).refused("LATE_ANSWER")  # that attempt was cancelled, not failed
    assert again.state.task_status[found.plan.index["c"]] == PENDING
    ended = after_all(again, ("a", 2), ("b", 2), ("c", 1))
    assert ended.state.status == "completed"
    assert ended.happened[-1] == ExecutionCompleted(4, {"b": None, "c": None, "d": None})


def after_all(so_far, *tasks):
    for task, attempt in tasks:
        so_far = so_far.when(done(task, attempt)).so()
    return so_far


def test_the_policy_begins_anew_and_attempts_count_on():
    """I18."""
    found = flow(a=[], policy={**NO_DELAY, "max_attempts": 2})
    failed = after(start(found), fail("a"), fail("a", 2))
    again = failed.when(RetryExecution()).then(retried(found, "a"), scheduled("a", 3))
    again = again.when(fail("a", 3)).so()
    assert again.state.status == "executing"
    assert again.when(fail("a", 4)).so().state.status == "failed"


def test_the_first_attempt_after_a_retry_does_not_wait():
    found = flow(a=[], b=[], policy={"initial_backoff_seconds": 10, "jitter": False}, limit=1)
    failed = after(start(found), fail("a"), fail("a", 2, **DEAD))
    again = failed.when(RetryExecution()).then(retried(found, "a"), scheduled("a", 3))
    assert again.when(fail("a", 3)).events[-1] == scheduled("a", 4, delay_ms=10_000)
    behind = after(start(found), done("a"), TimeOutExecution(), RetryExecution())
    assert behind.happened[-1] == scheduled("b", 2)


def test_inputs_are_edited_and_stay_edited():
    """R11: whoever folds from here on has all that it needs."""
    failed = after(start(CHAIN, input="all"), fail("a", **DEAD))
    again = failed.when(RetryExecution(inputs={"a": 1, "b": 2})).then(
        retried(CHAIN, "a", input="all", inputs={"a": 1, "b": 2}), scheduled("a", 2)
    )
    twice = again.when(fail("a", 2, **DEAD)).so()
    twice.when(RetryExecution("a", {"a": 3})).then(
        retried(CHAIN, "a", input="all", inputs={"a": 3, "b": 2}), scheduled("a", 3)
    )


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"z": 1}, "UNKNOWN_TASK"),
        ({"a": 1}, "TASK_COMPLETED"),
        ({"b": "x" * INPUT_BYTES_MAX}, "TOO_LARGE"),
    ],
)
def test_an_input_is_for_a_task_that_will_run(inputs, code):
    failed = after(start(CHAIN), done("a"), fail("b", **DEAD))
    failed.when(RetryExecution(inputs=inputs)).refused(code, f"/inputs/{next(iter(inputs))}")


def test_only_what_has_failed_can_be_gone_on_with():
    for so_far in (
        after(start(CHAIN)),
        after(start(CHAIN), PauseExecution()),
        after(start(CHAIN), CancelExecution()),
        after(start(ONE), done("a")),
        after(start(ONE), fail("a", **DEAD), RetryExecution()),
    ):
        so_far.when(RetryExecution()).refused("NOT_FAILED")
    failed = after(start(CHAIN), done("a"), fail("b", **DEAD))
    failed.when(RetryExecution("a")).refused("NOT_FAILED", "/task")
    failed.when(RetryExecution("z")).refused("UNKNOWN_TASK", "/task")


def test_an_execution_whose_time_was_over_goes_on_with_all_of_it():
    found = flow(a=[], b=["a"], c={"wait_for": "go"})
    over = after(
        start(found, timeout_seconds=5), SignalExecution("go"), ask("a"), TimeOutExecution()
    )
    again = over.when(RetryExecution()).then(
        retried(found, "a", "c", timeout_seconds=5), scheduled("a", 2), scheduled("c", 2)
    )
    assert again.state.signals == {"go"}
    again.when(SignalExecution("go")).then_nothing()
    again.when(ask("a")).refused("LATE_ANSWER")


def test_what_nobody_took_may_be_taken_after_a_retry():
    """F38: the role has agents again."""
    again = after(start(ONE), late("a", kind="queue")).when(RetryExecution())
    again.then(retried(ONE, "a"), scheduled("a", 2))


def test_what_had_not_begun_goes_on_without_being_named():
    """Nothing had been scheduled: it waits for a signal."""
    found = flow(a={"wait_for": "go"})
    again = after(start(found), TimeOutExecution()).when(RetryExecution()).then(retried(found))
    heard = again.when(SignalExecution("go")).so()
    assert heard.when(done("a")).so().state.status == "completed"


def test_a_limit_holds_after_a_retry():
    found = flow(a=[], b=[], c=[], limit=2)
    again = after(start(found), fail("a", **DEAD)).when(RetryExecution()).so()
    assert again.state.in_flight == 2
    assert again.when(done("a", 2)).events[-1] == scheduled("c")


def test_an_execution_that_ends_again_is_an_end():
    """I8: one terminal event for each time that it goes on."""
    again = after(start(ONE), fail("a", **DEAD), RetryExecution())
    ended = again.when(fail("a", 2, **DEAD)).so()
    assert [type(event) for event in ended.happened].count(ExecutionFailed) == 2
    assert ended.state.terminal


def test_attempts_are_bounded_for_good():
    """R22: an attempt's number is one byte."""
    state = after(start(ONE), fail("a", **DEAD)).state
    state.attempts[0] = ATTEMPTS_IN_ALL_MAX - ATTEMPTS_MAX
    assert EXECUTION.decide(state, RetryExecution(), NOW)
    state.attempts[0] += 1
    with pytest.raises(Refused, match="TOO_MANY_ATTEMPTS"):
        EXECUTION.decide(state, RetryExecution(), NOW)


def test_a_reader_finds_the_workflow_of_a_retry():
    assert EXECUTION.reference(retried(ONE, "a")) == Reference("w", 1)
