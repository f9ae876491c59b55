"""Deadlines: whoever does not answer in time is not waited for any longer.

An agent that holds a task has the task's time, and a grace, since its own timer should fire first.
A task that nobody takes, an execution as a whole, and the undoing of a task are bounded as well;
and an execution of which nothing is heard although nobody works on it is asked how it is.

A takeover begins a task's time again, a few times: that the agent before has died is not the next
one's fault, but agents that take over from each other must end some time.
"""

from __future__ import annotations

from collections.abc import Callable

from aggregates.decider import Blueprint
from processors.managers.deadlines_state import (
    NEVER,
    QUEUE,
    RUN,
    UNDO,
    Deadlines,
    Open,
    Run,
    dump,
    load,
    references,
    waiting,
)
from processors.managers.manager import Effect, Manager
from processors.managers.overdue import ACTOR, EXECUTION, SILENCE_S, due
from streams.message import Event

RUN_GRACE_S = 10.0
UNDO_WAIT_S = 300.0  # agents do not say when they begin to undo: time to be taken up
TAKEOVERS_MAX = 3  # more of them do not begin the time of an attempt again

_BEGINNINGS = frozenset({"ExecutionStarted", "ExecutionRetried"})


def react(state: Deadlines, event: Event, found: Blueprint | None, now: float) -> list[Effect]:
    """Note what begins and what ends; what follows is a matter of time."""
    run = state.runs.get(event.root)
    if event.type in _BEGINNINGS:
        if found is not None:
            _start(state, event, found, now)
    elif run is not None:
        run.heard = now
        if run.quiet:
            run.quiet = 0
            state.look(event.root, run, now + SILENCE_S)
        _HANDLERS[event.type](state, run, event, now)
    elif event.type == "CompensationScheduled":  # tried again, after the execution's end
        run = Run(None, event.tenant, event.partition, event.position, now)
        state.runs[event.root] = run
        _undo(state, run, event, now)
    return []


def _start(state: Deadlines, event: Event, found: Blueprint, now: float) -> None:
    run = Run(found, event.tenant, event.partition, event.position, now)
    state.runs[event.root] = run
    if seconds := event.data.get("timeout_seconds"):
        run.expires = now + seconds
    state.look(event.root, run, min(run.expires, now + SILENCE_S))


# What begins ------------------------------------------------------------------------------------


def _queue(state: Deadlines, run: Run, event: Event, now: float) -> None:
    said = event.data
    if run.found is None:
        return
    wait_s = run.found.plan.definition.coordination.queue_timeout_seconds
    at = now + said["delay_ms"] / 1_000 + wait_s
    run.open[said["task"]] = Open(at, QUEUE, said["attempt"], event.position)
    state.look(event.root, run, at)


def _begin(state: Deadlines, run: Run, event: Event, now: float) -> None:
    one = run.open.get(event.data["task"])
    if one is not None and one.kind == QUEUE:
        one.kind = RUN
        _restart(state, run, one, event, now)


def _take_over(state: Deadlines, run: Run, event: Event, now: float) -> None:
    one = run.open.get(event.data["task"])
    if one is not None and one.kind == RUN and one.takeovers < TAKEOVERS_MAX:
        one.takeovers += 1
        _restart(state, run, one, event, now)


def _restart(state: Deadlines, run: Run, one: Open, event: Event, now: float) -> None:
    task = event.data["task"]
    one.at = now + run.task_s(task) + RUN_GRACE_S
    one.position = event.position
    state.outstanding.answered(event.root, task)
    state.look(event.root, run, one.at)


def _undo(state: Deadlines, run: Run, event: Event, now: float) -> None:
    said = event.data
    task = said["task"]
    at = now + said["delay_ms"] / 1_000 + UNDO_WAIT_S + run.task_s(task) + RUN_GRACE_S
    run.open[task] = Open(at, UNDO, said["attempt"], event.position)
    state.outstanding.answered(event.root, task)
    state.look(event.root, run, at)


# What ends --------------------------------------------------------------------------------------


def _close(state: Deadlines, run: Run, event: Event, now: float) -> None:
    task = event.data["task"]
    run.open.pop(task, None)
    if state.outstanding:
        state.outstanding.answered(event.root, task)


def _undone(state: Deadlines, run: Run, event: Event, now: float) -> None:
    _close(state, run, event, now)
    if run.found is None and not run.open:
        _end(state, run, event, now)


def _pause(state: Deadlines, run: Run, event: Event, now: float) -> None:
    """The execution's own time stands still; tasks that run go on, and so does theirs."""
    run.paused = True
    if run.expires != NEVER:
        run.left, run.expires = max(0.0, run.expires - now), NEVER


def _resume(state: Deadlines, run: Run, event: Event, now: float) -> None:
    run.paused = False
    if run.left is not None:
        run.expires = now + run.left
        run.left = None
        state.look(event.root, run, run.expires)


def _compensate(state: Deadlines, run: Run, event: Event, now: float) -> None:
    """How it ends is decided; from now on each undoing has its own time."""
    run.expires, run.left = NEVER, None
    state.outstanding.answered(event.root, EXECUTION)


def _end(state: Deadlines, run: Run, event: Event, now: float) -> None:
    del state.runs[event.root]
    state.outstanding.ended(event.root)


def _refuse(state: Deadlines, run: Run, event: Event, now: float) -> None:
    """What was refused for an attempt is not tried again: the next silence asks why."""
    if task := state.outstanding.refused(event):
        run.open.pop(task, None)


def _nothing(state: Deadlines, run: Run, event: Event, now: float) -> None:
    """A sign of life, no more."""


_HANDLERS: dict[str, Callable[[Deadlines, Run, Event, float], None]] = {
    "TaskScheduled": _queue,
    "TaskStarted": _begin,
    "TaskTakenOver": _take_over,
    "TaskCompleted": _close,
    "TaskFailed": _close,
    "TaskTimedOut": _close,
    "TaskCancelled": _close,
    "InputRequested": _close,
    "SignalReceived": _nothing,
    "ExecutionPaused": _pause,
    "ExecutionResumed": _resume,
    "ExecutionCompleted": _end,
    "ExecutionFailed": _end,
    "ExecutionCancelled": _end,
    "CompensationStarted": _compensate,
    "CompensationScheduled": _undo,
    "TaskCompensated": _undone,
    "CompensationFailed": _undone,
    "CompensationParked": _undone,
    "CommandRejected": _refuse,
}


DEADLINES = Manager(
    name=ACTOR,
    events=_BEGINNINGS | _HANDLERS.keys(),
    initial=Deadlines,
    react=react,
    due=due,
    waiting=waiting,
    dump=dump,
    references=references,
    load=load,
)
