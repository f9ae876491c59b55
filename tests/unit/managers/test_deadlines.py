"""Deadlines: who does not answer in time is not waited for, never early, and said until heard."""

from __future__ import annotations

from typing import Any

from aggregates.definitions.model import QUEUE_TIMEOUT_SECONDS as QUEUE_TIMEOUT_S
from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    CompensationStarted,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionRetried,
    InputRequested,
    SignalReceived,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
    TaskTimedOut,
)
from processors.managers import deadlines_state
from processors.managers.deadlines import (
    DEADLINES,
    RUN_GRACE_S,
    TAKEOVERS_MAX,
    UNDO_WAIT_S,
)
from processors.managers.manager import Send
from processors.managers.outstanding import RESEND_S
from processors.managers.overdue import SILENCE_S, SILENCE_S_MAX
from streams.message import Command
from tests.flows import ROLE, flow
from tests.spec import ROOT, Reacting, after, facts, reacting, rejection

LIMIT_S = 20.0
FLOW = flow(a={"timeout_seconds": LIMIT_S}, b={"depends_on": ["a"]})
START = StartExecution("w", input={"n": 1})
START._blueprint = FLOW
[STARTED, *_] = after(START).happened
QUEUED = TaskScheduled("a", 1, ROLE, 1)
RUNNING = TaskStarted("a", 1, "ann")
RUN_S = LIMIT_S + RUN_GRACE_S


def said(command: str, cause: str, **data: Any) -> Send:
    """A command of the manager, about what the event at `cause` began."""
    position = cause.partition(":")[0]
    return Send(
        Command(
            f"deadlines:0:{cause}",
            command,
            "execution",
            ROOT,
            data,
            actor="deadlines",
            causation=f"0-{position}",
        )
    )


def timed_out(cause: int, kind: str = "run", attempt: int = 1) -> Send:
    reason = f"No answer in {LIMIT_S:g} s." if kind == "run" else "No agent has taken it in time."
    return said("TimeOutTask", str(cause), task="a", attempt=attempt, kind=kind, reason=reason)


def deadlines(*happened: Any, at: float = 0.0, **more: Any) -> Reacting:
    """The manager, after an execution has started and then this has happened."""
    return reacting(DEADLINES, FLOW).given(*facts([STARTED, *happened], **more), at=at)


def quiet(manager: Reacting, until: float, since: float = 0.0) -> Reacting:
    """Nothing is said of tasks up to this moment, however often time is looked at."""
    moments = [since + (until - since) * n / 50 for n in range(50)]
    for now in (*moments, until):
        for effect in manager.at(now).effects:
            assert isinstance(effect, Send)
            assert effect.command.type == "CheckExecution"
    return manager


# A task that runs -------------------------------------------------------------------------------


def test_an_agent_has_the_tasks_time_and_a_grace_from_its_start():
    """R33, F37: its own timer fires first."""
    running = deadlines(QUEUED).given(*facts([RUNNING], after=2), at=100.0)
    quiet(running, 100.0 + RUN_S - 0.001, 100.0)
    running.at(100.0 + RUN_S).then(timed_out(3))


def test_what_is_over_is_said_until_it_is_heard():
    """F12: the command may be lost with Redis; a repeat has the same id."""
    late = deadlines(QUEUED, RUNNING).at(RUN_S).then(timed_out(3))
    late.at(RUN_S + RESEND_S).then(timed_out(3))
    late.restored(1_000.0).at(1_000.0).then(timed_out(3))
    over = TaskTimedOut("a", 1, "ann", "run", "late", False)
    quiet(late.given(*facts([over], after=3), at=RUN_S + 6.0), 10_000.0, RUN_S + 6.0)


def test_who_answers_in_time_is_left_alone():
    answers = (
        TaskCompleted("a", 1, "ann"),
        TaskFailed("a", 1, "ann", "no", False),
        TaskCancelled("a", 1),
        InputRequested("a", 1, "ann", "how?"),
    )
    for answer in answers:
        assert deadlines(QUEUED, RUNNING, answer).state.runs[ROOT].open == {}
        quiet(deadlines(QUEUED, RUNNING, answer), 10 * QUEUE_TIMEOUT_S)


def test_the_next_attempt_has_its_own_time():
    """R30."""
    failed = TaskFailed("a", 1, "ann", "no", True)
    second = (TaskScheduled("a", 2, ROLE, 1, 0, 5_000), TaskStarted("a", 2, "bob"))
    again = deadlines(QUEUED, RUNNING).given(*facts([failed, *second], after=3), at=25.0)
    quiet(again, 25.0 + RUN_S - 0.001, 25.0)
    again.at(25.0 + RUN_S).then(timed_out(6, attempt=2))


def test_a_takeover_begins_the_time_again_but_not_for_ever():
    """F34: who died before is not the next one's fault; F37: a chain of them ends."""
    chain, now = deadlines(QUEUED, RUNNING), 0.0
    for turn in range(TAKEOVERS_MAX + 3):
        taken = TaskTakenOver("a", 1, f"agent-{turn}")
        chain.given(*facts([taken], after=3 + turn), at=now)
        if turn < TAKEOVERS_MAX:
            quiet(chain, now + RUN_S - 0.001, now)
            now += RUN_S - 0.001
    [effect] = chain.at(now + 0.001).effects
    assert effect == timed_out(3 + TAKEOVERS_MAX)


def test_a_start_or_takeover_of_what_is_not_open_begins_nothing():
    for stray in (RUNNING, TaskTakenOver("a", 1, "bob"), SignalReceived("go")):
        quiet(deadlines(stray), 10 * QUEUE_TIMEOUT_S)


# A task that nobody takes -----------------------------------------------------------------------


def test_a_task_that_nobody_takes_ends_in_a_day_after_its_delay():
    """F38: it waits with a reason, then it ends."""
    delayed = deadlines(TaskScheduled("a", 1, ROLE, 1, 0, 7_000))
    quiet(delayed, QUEUE_TIMEOUT_S + 7.0 - 0.01)
    delayed.at(QUEUE_TIMEOUT_S + 7.0).then(timed_out(2, "queue"))


def test_who_takes_it_at_the_last_moment_has_the_time_to_run():
    late = deadlines(QUEUED).at(QUEUE_TIMEOUT_S).then(timed_out(2, "queue"))
    late.given(*facts([RUNNING], after=2), at=QUEUE_TIMEOUT_S + 1.0)
    quiet(late, QUEUE_TIMEOUT_S + 1.0 + RUN_S - 0.01, QUEUE_TIMEOUT_S + 1.0)
    late.at(QUEUE_TIMEOUT_S + 1.0 + RUN_S).then(timed_out(3))


# An execution as a whole ------------------------------------------------------------------------

BOUNDED = StartExecution("w", timeout_seconds=500.0)
BOUNDED._blueprint = FLOW
LATE = said("TimeOutExecution", "1", reason="The execution's own time limit has passed.")


def bounded(*happened: Any) -> Reacting:
    """An execution with a time limit of its own."""
    started = after(BOUNDED).happened[0]
    started.timeout_seconds = 500.0
    return reacting(DEADLINES, FLOW).given(*facts([started, *happened]))


def test_an_execution_has_its_own_time_limit():
    """R11."""
    quiet(bounded(), 499.9).at(500.0).then(LATE)


def test_a_pause_does_not_count_against_the_execution():
    """R11: it may be over the weekend; also when it began before a restart."""
    paused = bounded().given(*facts([ExecutionPaused("")], after=1), at=400.0)
    paused = quiet(paused, 100_000.0, 400.0).restored(200_000.0)
    quiet(paused, 300_000.0, 200_000.0)
    going_on = paused.given(*facts([ExecutionResumed("")], after=2), at=300_000.0)
    quiet(going_on, 300_099.9, 300_000.0).at(300_100.0).then(LATE)


def test_a_pause_of_an_execution_without_a_limit_gives_it_none():
    both = deadlines(ExecutionPaused(""), ExecutionResumed(""))
    quiet(both, 10 * QUEUE_TIMEOUT_S)


def test_once_it_is_being_undone_its_own_limit_is_over():
    undoing = CompensationStarted("failed", "x", "b", ["a"])
    quiet(bounded(undoing), 10_000.0)
    late = quiet(bounded(), 499.0).at(500.0).then(LATE)
    quiet(late.given(*facts([undoing], after=1), at=501.0), 10_000.0, 501.0)


def test_an_execution_that_has_ended_leaves_nothing():
    """I16."""
    ends = (ExecutionCompleted(2), ExecutionFailed("x"), ExecutionCancelled("x"))
    for end in ends:
        over = bounded(QUEUED, RUNNING).at(RUN_S).given(*facts([end], after=3))
        assert over.state.runs == {}
        assert not over.state.outstanding
        over.at(10 * QUEUE_TIMEOUT_S).then_nothing()
        assert (over.state.looks, over.state.outstanding.timers) == ([], [])


def test_looks_at_what_has_ended_are_swept_away(monkeypatch):
    """I16: a day's deadlines of executions that took a second do not pile up."""
    monkeypatch.setattr(deadlines_state, "COMPACT_MIN", 5)
    many = reacting(DEADLINES, FLOW)
    for number in range(100):
        life = [STARTED, QUEUED, RUNNING, ExecutionCompleted(1)]
        many.given(*facts(life, f"e{number}"))
        assert len(many.state.looks) <= 5 + 2 + 3


def test_an_execution_that_is_retried_has_its_deadlines_again():
    """R11."""
    retried = ExecutionRetried("w", 1, FLOW.digest, ["a"], "again")
    more = [retried, TaskScheduled("a", 2, ROLE, 1), TaskStarted("a", 2, "ann")]
    again = deadlines(ExecutionFailed("x")).given(*facts(more, after=2))
    quiet(again, RUN_S - 0.1).at(RUN_S).then(timed_out(5, attempt=2))


def test_an_execution_without_its_definition_is_left_alone():
    reacting(DEADLINES).given(*facts([STARTED, QUEUED])).at(1e9).then_nothing()


# Undoing ----------------------------------------------------------------------------------------

UNDO = CompensationScheduled("a", 1, ROLE, "refund", 3_000)
UNDO_S = 3.0 + UNDO_WAIT_S + LIMIT_S + RUN_GRACE_S


def undo_is_late(cause: int, attempt: int = 1, limit_s: float = LIMIT_S) -> Send:
    reason = f"Nobody has undone it in {limit_s:g} s."
    return said("TimeOutCompensation", str(cause), task="a", attempt=attempt, reason=reason)


def test_undoing_a_task_is_bounded_too():
    """R31, F40."""
    undoing = deadlines(UNDO)
    quiet(undoing, UNDO_S - 0.01).at(UNDO_S).then(undo_is_late(2))
    ends = (
        TaskCompensated("a", 1, "ann"),
        CompensationFailed("a", 1, None, "late", True),
        CompensationParked("a", 1, "late"),
    )
    for end in ends:
        over = deadlines(UNDO).at(UNDO_S).given(*facts([end], after=2), at=UNDO_S)
        quiet(over, 10_000.0, UNDO_S)


def test_undoing_that_is_tried_again_after_the_end_is_bounded_and_then_forgotten():
    """R31: nothing is known of the execution any more, so the usual limit holds."""
    after_all = deadlines(ExecutionFailed("x", "b", [], ["a"]), UNDO)
    after_all = after_all.restored()
    usual_s = UNDO_S - LIMIT_S + 300.0
    after_all.at(usual_s).then(undo_is_late(3, limit_s=300.0))
    failed = CompensationFailed("a", 1, None, "late", True)
    second = CompensationScheduled("a", 2, ROLE, "refund")
    after_all.given(*facts([failed, second, TaskCompensated("a", 2, "ann")], after=3))
    assert after_all.state.runs == {}
    after_all.at(1e9).then_nothing()


# Silence ----------------------------------------------------------------------------------------


def test_an_execution_that_nobody_works_on_is_asked_how_it_is_less_and_less_often():
    """R33, I15: a deadlock is found, also one that was never thought of."""
    silent, now, pause = deadlines(), 0.0, SILENCE_S
    for number in range(1, 12):
        silent.at(now + pause - 0.01).then_nothing()
        now += pause
        silent.at(now).then(said("CheckExecution", f"1:{number}"))
        pause = min(2 * pause, SILENCE_S_MAX)
    assert pause == SILENCE_S_MAX
    silent.given(*facts([SignalReceived("go")], after=1), at=now + 1.0)
    silent.at(now + SILENCE_S).then_nothing()
    silent.at(now + 1.0 + SILENCE_S).then(said("CheckExecution", "1:12"))


def test_after_a_restart_no_check_has_the_id_of_one_before():
    """Else it would be taken for a repeat, and answered from memory."""
    again = deadlines().at(SILENCE_S).restored(1_000.0)
    again.at(1_000.0).then_nothing()
    again.at(1_000.0 + SILENCE_S).then(said("CheckExecution", "1:2"))


def test_who_is_known_to_work_or_to_be_paused_is_not_asked():
    for reason in (QUEUED, ExecutionPaused("")):
        known = deadlines(reason)
        for now in range(0, 7_200, 60):
            known.at(float(now)).then_nothing()


def test_a_refused_time_out_is_not_repeated_and_silence_asks_why():
    """I15: it is not lost from sight."""
    late = deadlines(QUEUED, RUNNING).at(RUN_S).then(timed_out(3))
    late.given(rejection("deadlines:0:3", after=3), at=RUN_S + 1.0)
    late.at(RUN_S + SILENCE_S).then_nothing()
    late.at(RUN_S + 1.0 + SILENCE_S).then(said("CheckExecution", "1:1"))
    late.given(rejection("somebody else's", after=4), at=RUN_S + 1.0)
    assert late.state.runs[ROOT].open == {}


# Restoring --------------------------------------------------------------------------------------


def test_after_a_restart_a_deadline_has_the_seconds_that_were_left():
    """F10: later by the pause, never early."""
    again = deadlines(QUEUED, RUNNING).at(10.0).restored(5_000.0)
    quiet(again, 5_000.0 + RUN_S - 10.0 - 0.01, 5_000.0)
    again.at(5_000.0 + RUN_S - 10.0).then(timed_out(3))
