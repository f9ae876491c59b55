"""Which tasks of an execution run when: phases, priorities, limits, tasks that run alone."""

from __future__ import annotations

import pytest

from aggregates.decider import Blueprint
from aggregates.execution import (
    ExecutionCompleted,
    PhaseEntered,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from aggregates.execution_state import OUTPUT_TASKS_MAX
from tests.executions import (
    ANN,
    NO_DELAY,
    done,
    fail,
    of_kind,
    run,
    scheduled,
    start,
)
from tests.flows import flow
from tests.spec import after

# Phases, order, limits --------------------------------------------------------------------------


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
