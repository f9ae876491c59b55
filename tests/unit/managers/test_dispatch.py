"""Dispatch: every scheduled attempt is asked for once, and looked after until it is answered."""

from __future__ import annotations

from typing import Any

import orjson

from aggregates.decider import Blueprint, Reference
from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionRetried,
    InputProvided,
    InputRequested,
    SignalReceived,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTimedOut,
)
from processors.agents.wire import Assignment
from processors.managers import dispatch_runs
from processors.managers.dispatch import CONFIRM_S, DISPATCH, RECHECK_S, RECHECK_S_MAX
from processors.managers.manager import REFERRING, Ask, Recheck, Withdraw, reference
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
        **{
            "role": ROLE,
            "tenant": "default",
            "input": said[task],
            "metadata": {"tier": "gold"} if task == "a" else {},
            "timeout_seconds": 7.0 if task == "a" else 300.0,
            "reply_to": "commands:{0}",
            **more,
        },
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
        TaskTimedOut("a", 1, "ann", "run", "late", False),
        InputRequested("a", 1, "ann", "how?"),
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


# What agents are told besides -------------------------------------------------------------------


def test_an_attempt_that_nobody_waits_for_is_withdrawn_where_it_was_given_out():
    """F37."""
    for end in (TaskCancelled("a", 1), TaskTimedOut("a", 1, None, "queue", "late", False)):
        dispatch(SCHEDULED).when(*facts([end])).then(Withdraw(asked("a")))
        dispatch().when(*facts([end])).then_nothing()
        dispatch(scheduled("a", 1, 60_000)).when(*facts([end])).then_nothing()
        dispatch(SCHEDULED, TaskCompleted("a", 1, "ann")).when(*facts([end])).then_nothing()


def test_an_attempt_after_an_answer_carries_it_and_so_does_its_retry():
    """R11: a person was asked."""
    so_far = dispatch(SCHEDULED, InputRequested("a", 1, "ann", "how?"))
    so_far.when(*facts([InputProvided("a", 1, {"so": 1}), scheduled("a", 2)]))
    so_far.then(Ask(asked("a", 2, answer={"so": 1})))
    again = so_far.restored().given(*facts([TaskFailed("a", 2, "ann", "no", True)]))
    again.when(*facts([scheduled("a", 3)])).then(Ask(asked("a", 3, answer={"so": 1})))


def test_an_execution_that_is_retried_goes_on_with_the_edited_inputs():
    """R11: also where nothing is remembered of its first time."""
    retried = ExecutionRetried("w", 1, FLOW.digest, ["a"], "again", {"n": 1}, {"a": [1]})
    end = ExecutionFailed("x", "a")
    for before in (reacting(DISPATCH, FLOW), dispatch(SCHEDULED, end)):
        again = before.when(*facts([retried, scheduled("a", 2)]))
        again.then(Ask(asked("a", 2, input=[1])))
        again.when(*facts([scheduled("b")])).then(Ask(asked("b")))


WAITING = flow(a={"wait_for": "go"}, b=[])


def test_a_task_that_waited_for_a_signal_gets_what_came_with_the_first_one():
    """R11: also after a retry of the execution, to which it is not said again."""
    before = reacting(DISPATCH, WAITING).given(
        *facts([STARTED, SignalReceived("go", "first"), SignalReceived("go", "second")])
    )
    [effect] = before.when(*facts([scheduled("a")])).effects
    assert isinstance(effect, Ask)
    assert effect.assignment.signal == "first"
    [effect] = before.when(*facts([scheduled("b")])).effects
    assert isinstance(effect, Ask)
    assert effect.assignment.signal is None, "it waits for nothing"
    retried = ExecutionRetried("w", 1, WAITING.digest, ["a"], "again")
    again = before.given(*facts([ExecutionFailed("x", "a")])).restored()
    [effect] = again.when(*facts([retried, scheduled("a", 2)])).effects
    assert isinstance(effect, Ask)
    assert effect.assignment.signal == "first"


# Undoing ----------------------------------------------------------------------------------------

UNDONE = flow(a={"compensation_action": "refund"}, b={"depends_on": ["a"]})
DONE = [STARTED, SCHEDULED, TaskCompleted("a", 1, "ann", {"paid": 7})]


def undo(attempt: int = 1, delay_ms: int = 0) -> CompensationScheduled:
    return CompensationScheduled("a", attempt, "cashier", "refund", delay_ms)


def undoing(attempt: int = 1, output: Any = None) -> Assignment:
    more = {"input": {"n": 1}, "metadata": {}, "timeout_seconds": 300.0, "role": "cashier"}
    said = {"kind": "compensation", "action": "refund", "output": output or {"paid": 7}}
    return asked("a", attempt, **more, **said)


def undo_of(*happened: Any) -> Reacting:
    return reacting(DISPATCH, UNDONE).given(*facts([*DONE, *happened]))


def test_undoing_is_asked_of_its_role_with_what_the_task_had_delivered():
    """R31."""
    undo_of().when(*facts([undo()])).then(Ask(undoing()))
    undo_of().restored().when(*facts([undo()])).then(Ask(undoing()))


def test_undoing_waits_for_its_delay_is_checked_and_ends_like_a_task():
    """R31, F12."""
    late = undo_of().when(*facts([undo(2, 3_000)]), at=10.0).then_nothing()
    late.at(13.0).then(Ask(undoing(2)))
    late.restored(now=50.0).at(50.0).then(Recheck(undoing(2)))
    ends = (
        TaskCompensated("a", 2, "ann"),
        CompensationFailed("a", 2, "ann", "no", True),
    )
    for end in ends:
        over = undo_of(undo(2))
        over.when(*facts([end])).then_nothing()
        over.at(10_000.0).then_nothing()


def test_undoing_that_took_too_long_is_withdrawn():
    """F40."""
    for end in (
        CompensationFailed("a", 1, None, "late", True),
        CompensationParked("a", 1, "late"),
    ):
        undo_of(undo()).when(*facts([end])).then(Withdraw(undoing()))


def test_what_was_parked_can_be_undone_after_the_end_and_is_forgotten_then():
    """R31, I16."""
    parked = (undo(), CompensationParked("a", 1, "no"), ExecutionFailed("x", "b", [], ["a"]))
    after_all = undo_of(*parked).restored()
    assert after_all.state.runs == {}
    after_all.when(*facts([undo(2)])).then(Ask(undoing(2)))
    after_all.restored(now=9.0).at(9.0).then(Recheck(undoing(2)))
    parked_again = after_all.when(*facts([CompensationFailed("a", 2, "ann", "no", True)]))
    parked_again.then_nothing()
    parked_again.when(*facts([undo(3)])).then(Ask(undoing(3)))
    parked_again.given(*facts([TaskCompensated("a", 3, "ann")]))
    assert parked_again.state.ended == {}
    parked_again.when(*facts([undo(4)])).then_nothing()


def test_what_is_remembered_of_ended_executions_is_bounded(monkeypatch):
    """I16: the oldest leave first."""
    monkeypatch.setattr(dispatch_runs, "ENDED_RUNS_MAX", 2)
    many = reacting(DISPATCH, UNDONE)
    for root in ("one", "two", "three"):
        many.given(*facts([*DONE, ExecutionFailed("x", "b", [], ["a"])], root))
    assert [*many.state.ended] == ["two", "three"]


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
