"""Dispatch: every scheduled attempt is asked for once, and looked after until it is answered."""

from __future__ import annotations

from typing import Any

import orjson

from aggregates.decider import Blueprint, Reference
from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from processors.agents.wire import Assignment
from processors.managers.dispatch import CONFIRM_S, DISPATCH, RECHECK_S, RECHECK_S_MAX
from processors.managers.manager import REFERRING, Ask, Recheck, reference
from tests.flows import ROLE, flow
from tests.spec import ROOT, Reacting, after, facts, reacting

FLOW = flow(
    a={"input": {"own": 1}, "metadata": {"tier": "gold"}, "timeout_seconds": 7},
    b={"depends_on": ["a"]},
)
START = StartExecution("w", input={"n": 1})
START._blueprint = FLOW
STARTED, PHASE, SCHEDULED = after(START).happened


def asked(task: str, attempt: int = 1, **more: Any) -> Assignment:
    """The task as its agent gets it."""
    said = {"a": {"own": 1}, "b": {"n": 1}}
    return Assignment(
        execution_id=ROOT,
        task_id=task,
        attempt=attempt,
        role=ROLE,
        tenant=more.get("tenant", "default"),
        input=said[task],
        metadata={"tier": "gold"} if task == "a" else {},
        timeout_seconds=7.0 if task == "a" else 300.0,
        reply_to=more.get("reply_to", "commands:{0}"),
    )


def scheduled(task: str, attempt: int = 1, delay_ms: int = 0) -> TaskScheduled:
    return TaskScheduled(task, attempt, ROLE, 1, 0, delay_ms)


def dispatch(*happened: Any, **more: Any) -> Reacting:
    """Dispatch, after an execution has started and then this has happened."""
    return reacting(DISPATCH, FLOW).given(*facts([STARTED, *happened], **more))


# What is asked ----------------------------------------------------------------------------------


def test_a_scheduled_task_is_given_to_its_role():
    """R53: with its own input, limits and metadata."""
    dispatch().when(*facts([SCHEDULED])).then(Ask(asked("a")))


def test_a_task_without_an_input_gets_that_of_its_execution():
    dispatch().when(*facts([scheduled("b")])).then(Ask(asked("b")))


def test_tenant_and_answers_address_come_from_the_event():
    more = {"tenant": "acme", "partition": 5}
    said = asked("a", tenant="acme", reply_to="commands:{5}")
    dispatch(**more).when(*facts([SCHEDULED], **more)).then(Ask(said))


def test_what_changes_no_task_has_no_effect():
    events = [PHASE, TaskStarted("a", 1, "ann"), ExecutionPaused("")]
    dispatch(SCHEDULED).when(*facts(events)).then_nothing()


def test_a_task_of_an_unknown_execution_is_not_asked_for():
    reacting(DISPATCH).when(*facts([STARTED, SCHEDULED])).then_nothing()
    reacting(DISPATCH, FLOW).when(*facts([SCHEDULED])).then_nothing()


def test_an_attempt_is_asked_for_once_and_the_next_one_again():
    """R30."""
    failed = TaskFailed("a", 1, "ann", "no", True)
    dispatch(SCHEDULED).when(*facts([failed, scheduled("a", 2)])).then(Ask(asked("a", 2)))


# Delays and checks ------------------------------------------------------------------------------


def test_a_delayed_attempt_is_asked_for_when_its_delay_has_passed():
    """R30."""
    late = dispatch().when(*facts([scheduled("a", 2, delay_ms=2_500)]), at=100.0).then_nothing()
    late.at(102.4).then_nothing()
    late.at(102.5).then(Ask(asked("a", 2)))
    late.at(102.5 + RECHECK_S - 0.1).then_nothing()
    late.at(102.5 + RECHECK_S).then(Recheck(asked("a", 2)))


def test_what_was_asked_is_checked_less_and_less_often():
    """R33, F12: twice soon after each other, up to the bound, and for ever."""
    open_ = dispatch().when(*facts([SCHEDULED]), at=0.0)
    now, wait = 0.0, RECHECK_S
    for _ in range(10):
        for pause in (wait, CONFIRM_S):
            open_.at(now + pause - 0.001).then_nothing()
            now += pause
            open_.at(now).then(Recheck(asked("a")))
        wait = min(wait * 2, RECHECK_S_MAX)
    assert wait == RECHECK_S_MAX


def test_a_late_look_checks_once_and_not_for_every_moment_that_passed():
    open_ = dispatch().when(*facts([SCHEDULED]))
    open_.at(10_000.0).then(Recheck(asked("a")))
    open_.at(10_000.0).then_nothing()


def test_an_answered_task_is_not_checked():
    answers = (
        TaskCompleted("a", 1, "ann"),
        TaskFailed("a", 1, "ann", "no", False),
        TaskCancelled("a", 1),
    )
    for answer in answers:
        dispatch(SCHEDULED, answer).at(10_000.0).then_nothing()


def test_the_timer_of_an_older_attempt_does_not_touch_the_newer_one():
    both = dispatch(SCHEDULED, TaskFailed("a", 1, "ann", "no", True))
    both.when(*facts([scheduled("a", 2)]), at=1.0).then(Ask(asked("a", 2)))
    both.at(RECHECK_S).then_nothing()
    both.at(1.0 + RECHECK_S).then(Recheck(asked("a", 2)))


def test_an_execution_that_has_ended_leaves_nothing():
    """I16."""
    ends = (ExecutionCompleted(2), ExecutionFailed("x"), ExecutionCancelled("x"))
    for end in ends:
        over = dispatch(SCHEDULED, end)
        assert over.state.runs == {}
        over.at(10_000.0).then_nothing()
        assert over.state.timers == []


# Restoring --------------------------------------------------------------------------------------


def test_after_a_restart_what_is_open_is_checked_at_once():
    """F7."""
    more = {"tenant": "acme", "partition": 5}
    said = asked("a", tenant="acme", reply_to="commands:{5}")
    again = dispatch(SCHEDULED, **more).restored(now=50.0)
    again.at(50.0).then(Recheck(said))
    again.at(50.0 + CONFIRM_S - 0.1).then_nothing()
    again.at(50.0 + CONFIRM_S).then(Recheck(said))
    again.when(*facts([TaskCompleted("a", 1, "ann"), scheduled("b")], **more)).then(
        Ask(asked("b", tenant="acme", reply_to="commands:{5}"))
    )


def test_after_a_restart_what_was_left_of_a_delay_is_waited_for():
    """R30: never cut short, and what has passed does not begin again."""
    again = dispatch(scheduled("a", 2, delay_ms=60_000)).at(20.0).restored(now=1_000.0)
    again.at(1_039.9).then_nothing()
    again.at(1_040.0).then(Ask(asked("a", 2)))


def test_a_delay_that_has_passed_does_not_begin_again():
    passed = dispatch(scheduled("a", 2, delay_ms=60_000)).at(60.0)
    passed.restored(now=1_000.0).at(1_000.0).then(Recheck(asked("a", 2)))


def test_a_started_execution_needs_its_revision():
    [started, other] = facts([STARTED, SCHEDULED])
    assert started.type in REFERRING
    assert reference(started) == Reference("w", 1)
    assert other.type not in REFERRING


def test_a_dump_is_json_and_names_what_it_needs():
    state = dispatch(SCHEDULED, scheduled("b", 1, 500)).state
    data = orjson.loads(orjson.dumps(DISPATCH.dump(state, 0.0)))
    assert DISPATCH.references(data) == {Reference("w", 1)}
    found: dict[Reference, Blueprint] = {Reference("w", 1): FLOW}
    restored = DISPATCH.load(data, found, 0.0)
    assert restored.runs[ROOT].open["a"].assignment == asked("a")
    assert restored.runs[ROOT].open["b"].assignment == asked("b")
