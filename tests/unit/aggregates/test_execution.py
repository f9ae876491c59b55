"""An execution: what each command comes to in each status."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.decider import Blueprint, Reference, fold
from aggregates.execution import (
    EXECUTION,
    OUTPUT_TASKS_MAX,
    CancelExecution,
    CompleteTask,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    FailTask,
    PauseExecution,
    PhaseEntered,
    ResumeExecution,
    StartExecution,
    StartTask,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from aggregates.execution_state import PENDING, SCHEDULED
from aggregates.problem import DETAIL_CHARS_MAX
from tests.flows import ROLE, flow
from tests.spec import NOW, ROOT, Given, after, given

ANN, BOB = "ann", "bob"
NO_DELAY = {"initial_backoff_seconds": 0}


def start(found: Blueprint | None, **said: Any) -> StartExecution:
    command = StartExecution("w", **said)
    command._blueprint = found
    return command


def begin(task: str, attempt: int = 1, agent: str = ANN) -> StartTask:
    return StartTask(task, attempt, agent)


def done(task: str, attempt: int = 1, agent: str = ANN, output: Any = None) -> CompleteTask:
    return CompleteTask(task, attempt, agent, output)


def fail(
    task: str, attempt: int = 1, agent: str = ANN, error: str = "no", retryable: bool = True
) -> FailTask:
    return FailTask(task, attempt, agent, error, retryable)


def scheduled(task: str, attempt: int = 1, phase: int = 1, **more: Any) -> TaskScheduled:
    return TaskScheduled(task, attempt, ROLE, phase, **more)


def of_kind(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


CHAIN = flow(a=[], b=["a"])
ONE = flow(a=[], policy=NO_DELAY)


# Starting ---------------------------------------------------------------------------------------


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
def test_another_agent_takes_over_an_attempt_whose_agent_died(answer):
    """F34: the attempt decides, not the agent."""
    taken = after(start(CHAIN), begin("a"), begin("a", agent=BOB))
    assert taken.state.agents[0] == BOB
    answered = after(start(CHAIN), begin("a"), answer("a", agent=BOB))
    kinds = [type(event).__name__ for event in answered.happened]
    assert (kinds.count("TaskStarted"), kinds.count("TaskTakenOver")) == (1, 1)
    answered.when(done("a")).refused("NOT_YOURS" if answer is done else "LATE_ANSWER")


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


# Phases, order, limits --------------------------------------------------------------------------


def run(found: Blueprint, **said: Any) -> Given:
    """Complete whatever is scheduled, oldest first, until nothing is."""
    so_far = given().when(start(found, **said)).so()
    answered = 0
    while len(open_ := of_kind(so_far.happened, TaskScheduled)) > answered:
        task = open_[answered].task
        so_far = so_far.when(done(task, output=f"out of {task}")).so()
        answered += 1
    return so_far


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_a_run_without_failures_has_one_event_for_each_thing_that_happened(limit):
    """1 start, one a phase, three a task, 1 end; phases once each and in order."""
    found = flow(a=[], b=[], c=["a"], d=["a", "b"], e=["c", "d"], f=[], limit=limit)
    events = run(found).happened
    assert len(events) == 1 + 3 + 3 * 6 + 1
    assert [event.phase for event in of_kind(events, PhaseEntered)] == [1, 2, 3]
    assert isinstance(events[-1], ExecutionCompleted)


def test_phases_are_entered_in_order_even_when_a_later_one_is_done_first():
    found = flow(a=[], slow=[], b=["a"], c=["b"])
    late = after(start(found), done("a"), done("b"), done("c"))
    assert late.state.phase == 1
    late.when(done("slow")).then(
        TaskStarted("slow", 1, ANN),
        TaskCompleted("slow", 1, ANN),
        PhaseEntered(2, 3),
        PhaseEntered(3, 3),
        ExecutionCompleted(4, {"slow": None, "c": None}),
    )


def test_the_output_is_that_of_the_last_tasks():
    found = flow(a=[], b=["a"], c=["a"])
    assert run(found).happened[-1] == ExecutionCompleted(3, {"b": "out of b", "c": "out of c"})


@pytest.mark.parametrize("count", [OUTPUT_TASKS_MAX, OUTPUT_TASKS_MAX + 1])
def test_the_output_of_very_many_last_tasks_is_left_to_them(count):
    [*_, last] = run(flow({f"t{n}": [] for n in range(count)})).happened
    if count > OUTPUT_TASKS_MAX:
        assert last.output is None
    else:
        assert last.output == {f"t{n}": f"out of t{n}" for n in range(count)}


def order(found: Blueprint) -> list[str]:
    return [event.task for event in of_kind(run(found).happened, TaskScheduled)]


def test_higher_priorities_go_first_and_equals_in_the_order_of_the_file():
    assert order(
        flow(
            a=[],
            b={"priority": 5},
            c={"priority": -1},
            d={"priority": 5},
            e={"priority": 9, "depends_on": ["b"]},
            limit=1,
        )
    ) == ["b", "e", "d", "a", "c"]


def test_a_slot_that_becomes_free_goes_to_the_best_of_all_that_are_ready():
    found = flow(a=[], b={"priority": 1}, c={"priority": 3, "depends_on": ["d"]}, d=[], limit=2)
    assert order(found) == ["b", "a", "d", "c"]


def test_a_task_that_must_run_alone_waits_until_nothing_runs_and_lets_nothing_pass():
    """R3."""
    found = flow(a=[], b=[], alone={"parallel": False, "priority": -1}, c={"priority": -2})
    both = after(start(found))
    assert both.state.in_flight == 2
    one = both.when(done("a")).then_kinds(TaskStarted, TaskCompleted)
    alone = one.when(done("b")).then(
        TaskStarted("b", 1, ANN), TaskCompleted("b", 1, ANN), scheduled("alone", priority=-1)
    )
    alone.when(done("alone")).then(
        TaskStarted("alone", 1, ANN),
        TaskCompleted("alone", 1, ANN),
        scheduled("c", priority=-2),
    )


def test_a_retry_of_a_task_that_must_run_alone_runs_alone():
    """R3."""
    found = flow(a={"parallel": False}, b=[], policy=NO_DELAY)
    after(start(found)).when(fail("a")).then_kinds(TaskStarted, TaskFailed, TaskScheduled)
    again = after(start(found), fail("a"))
    assert again.state.alone
    assert again.when(done("a", 2)).events[-1] == scheduled("b")


def test_a_workflow_may_run_all_its_tasks_alone():
    """R3: `default_parallel: false`, but for those that say otherwise."""
    found = flow(a=[], b=[], c={"parallel": True}, d={"parallel": True}, all_alone=True)
    assert after(start(found)).state.in_flight == 1
    assert after(start(found), done("a"), done("b")).state.in_flight == 2


def test_the_limit_is_never_exceeded_and_always_used():
    """R33."""
    found = flow({f"t{n}": [] for n in range(7)}, limit=3)
    so_far = after(start(found))
    for n in range(7):
        assert so_far.state.in_flight == min(3, 7 - n)
        so_far = so_far.when(done(f"t{n}")).so()
    assert so_far.state.status == "completed"


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
