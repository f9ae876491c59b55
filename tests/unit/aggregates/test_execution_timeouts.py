"""Time-outs: of an attempt that runs too long, that nobody takes, and of the whole execution."""

from __future__ import annotations

import pytest

from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    PauseExecution,
    SignalExecution,
    TimeOutExecution,
)
from aggregates.execution_ending import DEADLOCK
from aggregates.execution_events import (
    ExecutionCompleted,
    ExecutionFailed,
    SignalReceived,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTimedOut,
)
from aggregates.problem import DETAIL_CHARS_MAX
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
from tests.spec import after, given

# Attempts ---------------------------------------------------------------------------------------


def test_an_attempt_that_runs_too_long_is_followed_by_another():
    """R33, F37."""
    again = (
        after(start(ONE), begin("a"))
        .when(late("a"))
        .then(TaskTimedOut("a", 1, ANN, "run", "No answer.", True), scheduled("a", 2))
    )
    again.when(late("a")).then_nothing()
    for answer in (begin, done, fail):
        again.when(answer("a")).refused("LATE_ANSWER")
    again.when(done("a", 2, BOB)).then_kinds(TaskStarted, TaskCompleted, ExecutionCompleted)


def test_a_time_out_waits_as_a_failure_does():
    found = flow(a=[], policy={"initial_backoff_seconds": 10, "jitter": False})
    events = after(start(found), begin("a")).when(late("a")).events
    assert events[-1] == scheduled("a", 2, delay_ms=10_000)


def test_attempts_that_run_too_long_use_up_the_policy():
    """I18."""
    found = flow(a=[], b=[], policy={**NO_DELAY, "max_attempts": 2})
    after(start(found), begin("a"), late("a"), begin("a", 2, BOB)).when(late("a", 2)).then(
        TaskTimedOut("a", 2, BOB, "run", "No answer.", False),
        TaskCancelled("b", 1),
        ExecutionFailed("TIMED_OUT: The task timed out in attempt 2. No answer.", "a"),
    )
    after(start(found), begin("a"), late("a")).when(fail("a", 2)).then_kinds(
        TaskStarted, TaskFailed, TaskCancelled, ExecutionFailed
    )


def test_a_policy_may_say_that_no_retry_mends_a_time_out():
    found = flow(a=[], policy={**NO_DELAY, "non_retryable_errors": ["TIMED_OUT"]})
    after(start(found), begin("a")).when(late("a")).then_kinds(TaskTimedOut, ExecutionFailed)


def test_a_task_that_nobody_takes_ends_the_execution_at_once():
    """F38: nobody serves the role; another attempt would wait as long."""
    ended = (
        after(start(ONE))
        .when(late("a", kind="queue", reason="The role has no agent."))
        .then(
            TaskTimedOut("a", 1, None, "queue", "The role has no agent.", False),
            ExecutionFailed(
                "TIMED_OUT: No agent took the task in attempt 1. The role has no agent.", "a"
            ),
        )
    )
    assert ended.state.status == "failed"
    ended.when(done("a")).refused("LATE_ANSWER")


def test_a_time_out_of_what_is_over_or_has_begun_changes_nothing():
    """A timer and an answer cross on their way."""
    after(start(ONE)).when(late("a", kind="run")).then_nothing()
    after(start(ONE), begin("a")).when(late("a", kind="queue")).then_nothing()
    after(start(ONE), fail("a"), begin("a", 2)).when(late("a", 1)).then_nothing()
    after(start(ONE), begin("a")).when(late("a", 2)).then_nothing()
    after(start(CHAIN)).when(late("b", 0, "queue")).then_nothing()
    after(start(ONE), ask("a")).when(late("a")).then_nothing()
    ended = after(start(ONE), done("a"))
    for kind in ("run", "queue"):
        ended.when(late("a", kind=kind)).then_nothing()
        after(start(ONE), CancelExecution()).when(late("a", kind=kind)).then_nothing()


def test_a_time_out_names_a_task_and_a_kind():
    after(start(ONE)).when(late("z")).refused("UNKNOWN_TASK")
    after(start(ONE)).when(late("a", kind="slow")).refused("INVALID_VALUE", "/kind")


def test_a_time_out_in_a_pause_is_retried_after_it():
    """R11."""
    paused = after(start(ONE), begin("a"), PauseExecution()).when(late("a"))
    assert paused.then_kinds(TaskTimedOut).state.in_flight == 0


def test_the_agent_of_the_attempt_before_did_not_leave_this_one_lying():
    waiting = after(start(ONE), fail("a"))
    waiting.when(late("a", 2, "queue")).then_kinds(TaskTimedOut, ExecutionFailed)
    assert waiting.when(late("a", 2, "queue")).events[0].agent is None


# Executions -------------------------------------------------------------------------------------


def test_the_time_of_an_execution_is_part_of_its_start():
    events = given().when(start(ONE, timeout_seconds=1.5)).events
    assert events[0].timeout_seconds == 1.5
    assert given().when(start(ONE)).events[0].timeout_seconds is None


@pytest.mark.parametrize("seconds", [0, -1, 366 * 86_400 + 1, float("nan"), float("inf")])
def test_the_time_of_an_execution_is_bounded(seconds):
    refused = given().when(start(ONE, timeout_seconds=seconds))
    refused.refused("INVALID_VALUE", "/timeout_seconds")


@pytest.mark.parametrize("before", [(), (PauseExecution(),)])
def test_an_execution_whose_time_is_over_fails(before):
    """R11, R33: also in a pause."""
    ended = (
        after(start(CHAIN), done("a"), begin("b"), *before)
        .when(TimeOutExecution("1 s"))
        .then(TaskCancelled("b", 1), ExecutionFailed("TIMED_OUT: 1 s"))
    )
    ended.when(TimeOutExecution()).then_nothing()
    ended.when(done("b")).refused("LATE_ANSWER")
    after(start(ONE), done("a")).when(TimeOutExecution()).then_nothing()


def test_the_reason_of_a_time_out_is_said_and_bounded():
    [*_, said] = after(start(ONE)).when(TimeOutExecution()).events
    assert said.reason == "TIMED_OUT: The execution took longer than it may."
    [*_, said] = after(start(ONE)).when(TimeOutExecution("x" * 5_000)).events
    assert len(said.reason) == DETAIL_CHARS_MAX


# Deadlock ---------------------------------------------------------------------------------------


def test_an_execution_that_is_well_passes_its_check():
    """R33."""
    after(start(CHAIN)).when(CheckExecution()).then_nothing()
    after(start(ONE), ask("a")).when(CheckExecution()).then_nothing()
    after(start(ONE), PauseExecution(), fail("a")).when(CheckExecution()).then_nothing()
    after(start(ONE), done("a")).when(CheckExecution()).then_nothing()
    after(start(flow(a={"wait_for": "go"}))).when(CheckExecution()).then_nothing()


FORK = flow(a=[], b=[], c=["a", "b"])
LOST = (*given().when(start(FORK)).events, TaskCancelled("b", 1))
"""What no decision of ours has led to: a task has ended and what waits for it has not."""


def test_an_execution_that_nothing_can_ever_happen_to_fails_at_once():
    """R33: nothing runs, nothing is ready, nothing that is waited for can come."""
    events = given(*LOST).when(done("a")).events
    assert events[-1] == ExecutionFailed(DEADLOCK)
    assert [type(event) for event in events[:2]] == [TaskStarted, TaskCompleted]
    assert len(events) == 3


def test_a_check_finds_what_was_not_seen_at_once():
    """An older engine's log, or one that a person has mended."""
    happened = (*LOST, TaskStarted("a", 1, ANN), TaskCompleted("a", 1, ANN))
    given(*happened).when(CheckExecution()).then(ExecutionFailed(DEADLOCK))


def test_what_waits_for_a_signal_may_still_get_it_and_is_looked_at_again_then():
    found = flow(a=[], b=[], c={"depends_on": ["a", "b"], "wait_for": "go"})
    lost = (*given().when(start(found)).events, TaskCancelled("b", 1))
    waiting = given(*lost).when(done("a")).then_kinds(TaskStarted, TaskCompleted)
    waiting.when(CheckExecution()).then_nothing()
    heard = waiting.when(SignalExecution("go")).then(SignalReceived("go"))
    heard.when(CheckExecution()).then(ExecutionFailed(DEADLOCK))


def test_a_check_schedules_what_was_overlooked():
    """The log knows of a start and not of the attempts that should have followed it."""
    started, entered, *_ = given().when(start(CHAIN)).events
    overlooked = given(started, entered)
    overlooked.when(CheckExecution()).then(scheduled("a"))
    assert overlooked.state.in_flight == 0


def test_a_deadlock_undoes_what_was_done_also_by_the_last_task():
    """R31."""
    found = flow(
        a={"compensation_action": "undo"},
        b=[],
        c=["a", "b"],
    )
    lost = (*given().when(start(found)).events, TaskCancelled("b", 1))
    [*_, said] = given(*lost).when(done("a")).events
    assert (said.outcome, said.reason, said.tasks) == ("failed", DEADLOCK, ["a"])
    assert TaskScheduled not in {type(event) for event in given(*lost).when(done("a")).events}
