"""An execution from its start to its end: started, paused, resumed, cancelled, restored."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.decider import Reference, fold
from aggregates.definitions.rules import INPUT_BYTES_MAX
from aggregates.execution import (
    EXECUTION,
    CancelExecution,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    PauseExecution,
    PhaseEntered,
    ResumeExecution,
    StartExecution,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from aggregates.execution_state import PENDING
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
from tests.spec import NOW, ROOT, after, given

# Starting ---------------------------------------------------------------------------------------


def test_an_input_is_bounded():
    large = "x" * (INPUT_BYTES_MAX + 1)
    given().when(start(CHAIN, input=large)).refused("TOO_LARGE", "/input")


def test_starting_enters_the_first_phase_and_schedules_what_waits_for_nothing():
    given().when(start(CHAIN, input={"n": 1})).then(
        ExecutionStarted("w", 1, CHAIN.digest, "flow", 2, 2, 1000, {"n": 1}),
        PhaseEntered(1, 2),
        scheduled("a"),
    )


def test_starting_twice_changes_nothing():
    after(start(CHAIN)).when(start(CHAIN)).then_nothing()
    after(start(ONE), done("a")).when(start(ONE)).then_nothing()


def test_an_execution_runs_one_workflow_only():
    after(start(CHAIN)).when(StartExecution("other")).refused("EXECUTION_EXISTS")


@pytest.mark.parametrize("revision", [0, 7])
def test_an_unknown_workflow_is_not_started(revision):
    given().when(start(None, revision=revision)).refused("UNKNOWN_WORKFLOW")


def test_an_archived_workflow_is_not_started():
    given().when(start(CHAIN._replace(archived=True))).refused("WORKFLOW_ARCHIVED")


def test_a_run_may_lower_the_limit_of_its_workflow_and_not_raise_it():
    wide = flow({f"t{n}": [] for n in range(9)}, limit=4)
    for wanted, got in ((None, 4), (2, 2), (9, 4)):
        events = given().when(start(wide, max_parallel_tasks=wanted)).events
        assert events[0].max_parallel_tasks == got
        assert len(of_kind(events, TaskScheduled)) == got
    given().when(start(wide, max_parallel_tasks=0)).refused("INVALID_VALUE")


def test_what_a_command_refers_to_is_one_revision():
    assert EXECUTION.reference(StartExecution("w", 3)) == Reference("w", 3)
    assert EXECUTION.reference(given().when(start(CHAIN)).events[0]) == Reference("w", 1)
    assert EXECUTION.reference({"workflow_id": "w", "revision": 2}) == Reference("w", 2)
    assert EXECUTION.reference(PauseExecution()) is None


@pytest.mark.parametrize("revision", [-1, 2**31, 2**63])
def test_a_revision_that_no_database_can_hold_is_looked_for_nowhere(revision):
    """F32: a query with such a number would fail, and its partition would wait for ever."""
    assert EXECUTION.reference(StartExecution("w", revision)) is None
    given().when(start(None, revision=revision)).refused("UNKNOWN_WORKFLOW")


@pytest.mark.parametrize(
    "command",
    [
        begin("a"),
        done("a"),
        fail("a"),
        PauseExecution(),
        ResumeExecution(),
        CancelExecution(),
    ],
)
def test_nothing_can_be_said_about_what_was_never_started(command):
    """F31: complete before start, cancel before create."""
    given().when(command).refused("UNKNOWN_EXECUTION")


def test_a_command_of_another_kind_is_refused():
    with pytest.raises(Exception, match="UNKNOWN_COMMAND"):
        EXECUTION.decide(after(start(ONE)).state, object(), NOW)


# Pause, resume, cancel --------------------------------------------------------------------------


def test_a_paused_execution_records_answers_and_schedules_nothing():
    """R11."""
    paused = after(start(CHAIN)).when(PauseExecution("why")).then(ExecutionPaused("why"))
    paused.when(PauseExecution("again")).then_nothing()
    ended = paused.when(done("a")).then(
        TaskStarted("a", 1, ANN), TaskCompleted("a", 1, ANN), PhaseEntered(2, 2)
    )
    ended.when(ResumeExecution("now")).then(ExecutionResumed("now"), scheduled("b", phase=2))


def test_a_retry_waits_for_the_end_of_the_pause():
    """R11."""
    paused = after(start(ONE), PauseExecution(), fail("a"))
    assert paused.state.task_status[0] == PENDING
    assert paused.state.in_flight == 0
    paused.when(ResumeExecution()).then(ExecutionResumed(""), scheduled("a", 2))
    paused.when(begin("a")).refused("LATE_ANSWER")
    paused.when(begin("a", 2)).refused("LATE_ANSWER")


def test_a_paused_execution_may_complete_and_may_fail():
    after(start(ONE), PauseExecution()).when(done("a")).then_kinds(
        TaskStarted, TaskCompleted, ExecutionCompleted
    )
    after(start(ONE), PauseExecution()).when(fail("a", retryable=False)).then_kinds(
        TaskStarted, TaskFailed, ExecutionFailed
    )


def test_resuming_what_runs_changes_nothing():
    after(start(CHAIN)).when(ResumeExecution()).then_nothing()
    after(start(CHAIN), PauseExecution(), ResumeExecution()).when(ResumeExecution()).then_nothing()


def test_resuming_beside_a_task_that_runs_alone_schedules_nothing_beside_it():
    found = flow(a={"parallel": False}, b=[])
    after(start(found), PauseExecution()).when(ResumeExecution()).then(ExecutionResumed(""))


def test_cancelling_cancels_what_is_open_and_ends_the_execution():
    """R11, I8."""
    found = flow(a=[], b=[], c=[], d=["a"])
    cancelled = (
        after(start(found), begin("b"), done("c"))
        .when(CancelExecution("enough"))
        .then(TaskCancelled("a", 1), TaskCancelled("b", 1), ExecutionCancelled("enough"))
    )
    cancelled.when(CancelExecution("again")).then_nothing()
    cancelled.when(done("a")).refused("LATE_ANSWER")
    cancelled.when(done("b")).refused("LATE_ANSWER")
    cancelled.when(fail("b")).refused("LATE_ANSWER")
    cancelled.when(begin("a")).refused("LATE_ANSWER")
    cancelled.when(begin("b")).then_nothing()
    cancelled.when(begin("b", agent=BOB)).refused("NOT_YOURS")
    cancelled.when(done("c")).then_nothing()


def test_a_cancelled_second_attempt_belongs_to_nobody():
    again = after(start(ONE), fail("a")).when(CancelExecution()).so()
    for agent in (ANN, BOB):
        again.when(begin("a", 2, agent)).refused("LATE_ANSWER")
        again.when(done("a", 2, agent)).refused("LATE_ANSWER")


def test_a_task_that_waits_for_its_next_attempt_is_cancelled_with_the_rest():
    """I8: it had begun, so it must end."""
    waiting = after(start(ONE), PauseExecution(), fail("a"))
    waiting.when(CancelExecution("x")).then(TaskCancelled("a", 1), ExecutionCancelled("x"))
    found = flow(a=[], b=[], policy={**NO_DELAY, "max_attempts": 2})
    after(start(found), fail("b"), PauseExecution(), fail("a")).when(fail("b", 2)).then(
        TaskStarted("b", 2, ANN),
        TaskFailed("b", 2, ANN, "no", False),
        TaskCancelled("a", 1),
        ExecutionFailed("The task failed in attempt 2: no", "b"),
    )


ENDED = {
    "completed": (start(ONE), done("a")),
    "failed": (start(ONE), fail("a", retryable=False)),
    "cancelled": (start(ONE), CancelExecution()),
}


@pytest.mark.parametrize("status", ENDED)
def test_what_has_ended_is_neither_paused_nor_resumed_nor_ended_again(status):
    """I8, F41."""
    ended = after(*ENDED[status])
    assert ended.state.status == status
    ended.when(PauseExecution()).refused("EXECUTION_ENDED")
    ended.when(ResumeExecution()).refused("EXECUTION_ENDED")
    ended.when(CancelExecution()).then_nothing()


# Restoring --------------------------------------------------------------------------------------


STORY: tuple[Any, ...] = (
    start(flow(a=[], b={"parallel": False}, c=["a"], d=["a"], limit=2, policy=NO_DELAY)),
    begin("a", agent=BOB),
    fail("a", 1, BOB),
    PauseExecution(),
    done("a", 2, output={"x": 1}),
    ResumeExecution(),
    done("b", output=[1]),
    begin("c"),
    done("d", output="d"),
    done("c", output="c"),
)


@pytest.mark.parametrize("steps", range(len(STORY) + 1))
def test_a_restored_execution_goes_on_as_the_live_one(steps):
    """I13: at every point of its life."""
    live = after(*STORY[:steps]).state if steps else EXECUTION.initial(ROOT)
    found = STORY[0]._blueprint if steps else None
    restored = EXECUTION.load(ROOT, EXECUTION.dump(live), found)
    for command in STORY[steps:]:
        assert same(live, restored)
        events = EXECUTION.decide(live, command, NOW)
        assert EXECUTION.decide(restored, command, NOW) == events
        live = fold(EXECUTION, ROOT, events, live)
        restored = fold(EXECUTION, ROOT, events, restored)
    assert same(live, restored)
    assert live.status == "completed"


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal; heaps may hold the same in another order."""
    return all(
        sorted(getattr(one, name)) == sorted(getattr(other, name))
        if name == "ready"
        else getattr(one, name) == getattr(other, name)
        for name in type(one).__slots__
    )


def test_the_state_follows_whatever_order_was_chosen():
    """`evolve` never judges: a later engine may choose by another rule."""
    found = flow(a=[], b=[], c=[])
    started = given().when(start(found)).events[0]
    state = given(started, scheduled("b"), scheduled("a")).state
    assert [task for _, task in state.ready] == [2]
    assert state.in_flight == 2


def test_a_start_without_its_workflow_changes_nothing():
    """`evolve` never fails: a log whose definitions were lost can still be read."""
    started = ExecutionStarted("w", 1, "d", "flow", 1, 1, 1)
    assert given(started).state.plan is None
    assert EXECUTION.load(ROOT, {"status": "executing"}, None).plan is None
