"""What agents say of tasks: once, in time, by whoever has the attempt; and what is tried again."""

from __future__ import annotations

import orjson
import pytest

from aggregates.execution import (
    CompleteTask,
    ExecutionCompleted,
    ExecutionFailed,
    PauseExecution,
    PhaseEntered,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
)
from aggregates.execution_state import SCHEDULED
from aggregates.problem import DETAIL_CHARS_MAX
from tests.executions import (
    ANN,
    BOB,
    CHAIN,
    NO_DELAY,
    ONE,
    begin,
    done,
    fail,
    of_kind,
    scheduled,
    start,
)
from tests.flows import flow
from tests.spec import after

# Answers ----------------------------------------------------------------------------------------


def test_a_task_is_started_once_and_completed_once():
    """I7."""
    begun = after(start(CHAIN)).when(begin("a")).then(TaskStarted("a", 1, ANN))
    begun.when(begin("a")).then_nothing()
    ended = begun.when(done("a", output=5)).then(
        TaskCompleted("a", 1, ANN, 5), PhaseEntered(2, 2), scheduled("b", phase=2)
    )
    ended.when(done("a", output=5)).then_nothing()
    ended.when(done("a", output="another")).then_nothing()
    ended.when(begin("a")).then_nothing()


def test_the_start_of_a_task_may_be_left_unsaid():
    said = CompleteTask("a", 1, ANN, "out", started_at="2026-01-02T03:04:05Z")
    after(start(CHAIN)).when(said).then(
        TaskStarted("a", 1, ANN, "2026-01-02T03:04:05Z"),
        TaskCompleted("a", 1, ANN, "out"),
        PhaseEntered(2, 2),
        scheduled("b", phase=2),
    )
    after(start(ONE)).when(fail("a", error="x", retryable=False)).then(
        TaskStarted("a", 1, ANN),
        TaskFailed("a", 1, ANN, "x", False),
        ExecutionFailed("The task failed in attempt 1: x", "a"),
    )


@pytest.mark.parametrize("answer", [begin, done, fail])
def test_a_task_that_is_not_there_has_no_answer(answer):
    after(start(CHAIN)).when(answer("z")).refused("UNKNOWN_TASK")


@pytest.mark.parametrize("answer", [begin, done, fail])
@pytest.mark.parametrize("attempt", [-1, 0, 2])
def test_an_answer_for_another_attempt_comes_late(answer, attempt):
    """F35."""
    after(start(CHAIN)).when(answer("a", attempt)).refused("LATE_ANSWER")


@pytest.mark.parametrize("answer", [begin, done, fail])
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_task_that_waits_for_others_has_no_answer_yet(answer, attempt):
    """F31, I17."""
    after(start(CHAIN)).when(answer("b", attempt)).refused("LATE_ANSWER")


@pytest.mark.parametrize("answer", [begin, done, fail])
def test_a_task_that_another_agent_ended_takes_no_further_answer(answer):
    """F35."""
    after(start(CHAIN), done("a")).when(answer("a", agent=BOB)).refused("NOT_YOURS")


@pytest.mark.parametrize("answer", [done, fail])
def test_a_later_delivery_takes_over_an_attempt_whose_agent_died(answer):
    """F34: the highest delivery holds the attempt, and whoever had it before is too late."""
    begun = after(start(CHAIN), begin("a"))
    taken = begun.when(begin("a", agent=BOB, delivery=2)).then(
        TaskTakenOver("a", 1, BOB, delivery=2, previous=ANN)
    )
    assert taken.state.agents[0] == BOB
    taken.when(begin("a", agent=BOB, delivery=2)).then_nothing()
    taken.when(answer("a")).refused("LATE_ANSWER")
    taken.when(answer("a", agent=ANN, delivery=2)).refused("NOT_YOURS")
    answered = begun.when(answer("a", agent=BOB, delivery=2)).so()
    kinds = [type(event) for event in answered.happened]
    assert (kinds.count(TaskStarted), kinds.count(TaskTakenOver)) == (1, 1)
    answered.when(answer("a", agent=BOB, delivery=2)).then_nothing()
    answered.when(done("a")).refused("LATE_ANSWER")


@pytest.mark.parametrize("answer", [begin, done, fail])
def test_nobody_takes_an_attempt_from_its_holder_without_a_later_delivery(answer):
    """F36, F37: an agent that was not asked cannot answer for another."""
    after(start(CHAIN), begin("a")).when(answer("a", agent=BOB)).refused("NOT_YOURS")
    second = after(start(CHAIN), begin("a", delivery=2))
    second.when(answer("a", agent=BOB, delivery=2)).refused("NOT_YOURS")
    second.when(answer("a", agent=BOB, delivery=1)).refused("LATE_ANSWER")


@pytest.mark.parametrize("answer", [begin, done, fail])
def test_whoever_begins_with_a_later_delivery_was_heard_of_first(answer):
    """F35: the agent of the first delivery said nothing in time."""
    second = after(start(CHAIN)).when(begin("a", agent=BOB, delivery=7))
    second.then(TaskStarted("a", 1, BOB, delivery=7))
    second.so().when(answer("a", agent=ANN)).refused("LATE_ANSWER")
    second.so().when(answer("a", agent=BOB, delivery=6)).refused("LATE_ANSWER")


def test_an_agent_that_begins_again_after_a_restart_begins_anew():
    """F34: its time runs from there on, and what it sent before is too late."""
    begun = after(start(CHAIN), begin("a"))
    again = begun.when(begin("a", delivery=3)).then(
        TaskTakenOver("a", 1, ANN, delivery=3, previous=ANN)
    )
    again.when(begin("a", delivery=3)).then_nothing()
    again.when(done("a", delivery=1)).refused("LATE_ANSWER")
    begun.when(done("a", delivery=3)).then_kinds(TaskCompleted, PhaseEntered, TaskScheduled)


def test_a_new_attempt_counts_its_deliveries_anew():
    taken = after(start(ONE), begin("a", delivery=9), fail("a", delivery=9))
    assert taken.state.deliveries == {}
    taken.when(begin("a", 2, BOB)).then(TaskStarted("a", 2, BOB))


@pytest.mark.parametrize("delivery", [0, -1, 2**63])
def test_a_delivery_is_a_number_that_can_be_stored(delivery):
    """F32."""
    refused = after(start(CHAIN)).when(done("a", delivery=delivery))
    refused.refused("INVALID_VALUE", "/delivery")


def test_the_first_delivery_adds_nothing_to_what_is_stored():
    assert orjson.loads(orjson.dumps(TaskStarted("a", 1, ANN))) == {
        "task": "a",
        "attempt": 1,
        "agent": ANN,
        "started_at": None,
    }
    assert orjson.loads(orjson.dumps(TaskStarted("a", 1, ANN, delivery=2)))["delivery"] == 2
    assert TaskStarted("a", 1, ANN) == TaskStarted("a", 1, ANN, None, 1)
    assert TaskStarted("a", 1, ANN) != TaskStarted("a", 1, ANN, None, 2)


def test_a_completed_task_does_not_fail_afterwards_nor_the_other_way_round():
    """I7."""
    after(start(CHAIN), done("a")).when(fail("a")).refused("LATE_ANSWER")
    after(start(ONE), fail("a", retryable=False)).when(done("a")).refused("LATE_ANSWER")


@pytest.mark.parametrize("agent", ["", "a" * 201])
def test_an_agents_name_is_bounded(agent):
    """It becomes a key in read models."""
    refused = after(start(CHAIN)).when(done("a", agent=agent))
    refused.refused("INVALID_VALUE", "/agent")


# Retries ----------------------------------------------------------------------------------------


def test_a_failed_attempt_is_followed_by_a_delayed_one():
    """R30, I18."""
    found = flow(a=[], policy={"initial_backoff_seconds": 10, "jitter": False})
    again = (
        after(start(found))
        .when(fail("a", error="x"))
        .then(
            TaskStarted("a", 1, ANN),
            TaskFailed("a", 1, ANN, "x", True),
            scheduled("a", 2, delay_ms=10_000),
        )
    )
    assert again.state.in_flight == 1
    assert again.state.task_status[0] == SCHEDULED
    again.when(done("a", 1)).refused("LATE_ANSWER")
    again.when(begin("a", 2, BOB)).then(TaskStarted("a", 2, BOB))
    again.when(done("a", 2, BOB)).then_kinds(TaskStarted, TaskCompleted, ExecutionCompleted)


def test_the_last_attempt_ends_the_execution_and_what_else_is_open():
    """I8, I18."""
    found = flow(a=[], b=[], c=["a"], policy={**NO_DELAY, "max_attempts": 2})
    after(start(found), begin("b", agent=BOB), fail("a", 1)).when(fail("a", 2, BOB, "x")).then(
        TaskStarted("a", 2, BOB),
        TaskFailed("a", 2, BOB, "x", False),
        TaskCancelled("b", 1),
        ExecutionFailed("The task failed in attempt 2: x", "a"),
    )


def test_an_error_that_no_retry_can_mend_ends_the_execution_at_once():
    """R30."""
    after(start(ONE)).when(fail("a", retryable=False)).then_kinds(
        TaskStarted, TaskFailed, ExecutionFailed
    )


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        ("InvalidInput", False),
        ("InvalidInput: no such column", False),
        ("InvalidInputs", True),
        ("an InvalidInput", True),
        ("quota exceeded", False),
        ("quota exceeded for today", False),
        ("quota", True),
        ("", True),
        ("anything", True),
    ],
)
def test_the_policy_names_errors_that_no_retry_can_mend(error, retried):
    """R30: an error is named by its beginning, up to the end of a word."""
    names = ["InvalidInput", "quota exceeded", ""]
    found = flow(a=[], policy={**NO_DELAY, "non_retryable_errors": names})
    events = after(start(found)).when(fail("a", error=error)).events
    assert of_kind(events, TaskFailed)[0].retried is retried
    assert bool(of_kind(events, ExecutionFailed)) is not retried


def test_a_failure_said_twice_costs_one_attempt():
    """I18, F35: the repeat under another command id changes nothing."""
    once = after(start(ONE), fail("a"))
    once.when(fail("a")).then_nothing()
    once.when(fail("a", agent=BOB)).refused("LATE_ANSWER")
    once.when(fail("a", 2)).then_kinds(TaskStarted, TaskFailed, TaskScheduled)
    after(start(ONE), fail("a"), begin("a", 2, BOB)).when(fail("a")).refused("LATE_ANSWER")
    after(start(ONE), PauseExecution(), fail("a")).when(fail("a")).then_nothing()
    ended = after(start(ONE), fail("a", retryable=False))
    ended.when(fail("a", retryable=False)).then_nothing()


def test_a_long_error_does_not_grow_the_reason_of_the_failure():
    events = after(start(ONE)).when(fail("a", error="x" * 5_000, retryable=False)).events
    assert len(events[-1].reason) == DETAIL_CHARS_MAX
    assert len(events[-2].error) == 5_000
