"""Dispatch: a scheduled task is given to the agents of its role, until an answer ends it.

What was asked stays outstanding until the event that answers it. From time to time it is checked:
a task that is neither in its stream nor answered was lost with Redis, and is asked again under the
same message id, so that an agent that has done it already answers from memory. Undoing a task is
asked for like the task. What nobody waits for any more is withdrawn from whoever has it.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop

from aggregates.decider import Blueprint
from processors.agents.wire import Assignment
from processors.managers.dispatch_runs import (
    Dispatch,
    Open,
    Run,
    dump,
    load,
    references,
    waiting,
)
from processors.managers.manager import Ask, Effect, Manager, Recheck, Settled, Withdraw
from streams.message import Event

RECHECK_S = 5.0
CONFIRM_S = 1.0
RECHECK_S_MAX = 60.0  # a long queue is looked at less and less often


def react(state: Dispatch, event: Event, found: Blueprint | None, now: float) -> list[Effect]:
    """What a fact makes necessary."""
    run = state.runs.get(event.root)
    if run is not None:
        if handler := _HANDLERS.get(event.type):
            return handler(state, run, event, now)
    elif event.type in _BEGINNINGS:
        if found is not None:
            _begin(state, event, found)
    elif (run := state.ended.get(event.root)) and event.type in _AFTER_THE_END:
        return _AFTER_THE_END[event.type](state, run, event, now)
    return []


def _begin(state: Dispatch, event: Event, found: Blueprint) -> None:
    """An execution starts, or starts again after it has failed."""
    said = event.data
    run = state.runs[event.root] = Run(found, event.tenant, said["input"])
    run.inputs = said.get("inputs") or {}
    if before := state.ended.pop(event.root, None):
        run.outputs, run.signals = before.outputs, before.signals
        run.inputs = before.inputs | run.inputs


# A task's turns ---------------------------------------------------------------------------------


def _schedule(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    said = event.data
    made = run.assignment(event.root, event.partition, said["task"], said["attempt"])
    return _give(state, run, made, said["delay_ms"], now)


def _undo(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    made = run.undoing(event.root, event.partition, event.data)
    return _give(state, run, made, event.data["delay_ms"], now)


def _give(state: Dispatch, run: Run, made: Assignment, delay_ms: int, now: float) -> list[Effect]:
    """Ask for it, at once or after its delay."""
    delay_s = delay_ms / 1_000
    run.open[made.task_id] = Open(made, not delay_ms, now + delay_s)
    state.wake(now + (delay_s or RECHECK_S), made)
    return [] if delay_ms else [Ask(made, run.needs.get(made.role))]


def _complete(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    task = event.data["task"]
    if task in run.undoable:
        run.outputs[task] = event.data["output"]
    return _close(state, run, event, now)


def _close(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    """The attempt is over; whoever was chosen for it has room."""
    one = run.open.pop(event.data["task"], None)
    return [Settled(one.assignment)] if run.needs and one is not None else []


def _withdraw(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    """Nobody waits for the attempt any more, and its agent may not know."""
    one = run.open.pop(event.data["task"], None)
    return [Withdraw(one.assignment)] if one is not None and one.asked else []


def _fail_undoing(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    timed_out = event.data["agent"] is None
    return (_withdraw if timed_out else _close)(state, run, event, now)


def _undone(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    run.outputs.pop(event.data["task"], None)
    effects = _close(state, run, event, now)
    if event.root in state.ended and not (run.outputs or run.open):
        del state.ended[event.root]
    return effects


# What agents are told besides -------------------------------------------------------------------


def _answer(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    run.answers[event.data["task"]] = event.data["input"]
    return []


def _signal(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    run.signals.setdefault(event.data["name"], event.data["data"])
    return []


# The end ----------------------------------------------------------------------------------------


def _end(state: Dispatch, run: Run, event: Event, now: float) -> list[Effect]:
    """Nothing is kept, unless something may be undone later, or the execution may go on."""
    left = event.data.get("not_compensated") or ()
    run.outputs = {task: run.outputs.get(task) for task in left}
    again = run.signals and event.type == "ExecutionFailed"
    over: list[Effect] = [Settled(o.assignment) for o in run.open.values()] if run.needs else []
    run.open.clear()
    state.end(event.root, run if left or again else None)
    return over


Handler = Callable[[Dispatch, Run, Event, float], list[Effect]]

_BEGINNINGS = frozenset({"ExecutionStarted", "ExecutionRetried"})

_AFTER_THE_END: dict[str, Handler] = {
    "CompensationScheduled": _undo,
    "TaskCompensated": _undone,
    "CompensationFailed": _fail_undoing,
    "CompensationParked": _withdraw,
}

_HANDLERS: dict[str, Handler] = _AFTER_THE_END | {
    "TaskScheduled": _schedule,
    "TaskCompleted": _complete,
    "TaskFailed": _close,
    "TaskTimedOut": _withdraw,
    "TaskCancelled": _withdraw,
    "InputRequested": _close,
    "InputProvided": _answer,
    "SignalReceived": _signal,
    "ExecutionCompleted": _end,
    "ExecutionFailed": _end,
    "ExecutionCancelled": _end,
}


# Time -------------------------------------------------------------------------------------------


def due(state: Dispatch, now: float) -> list[Effect]:
    """What the passing of time makes necessary: delayed tasks, and checks of what was asked."""
    effects: list[Effect] = []
    while state.timers and state.timers[0][0] <= now:
        _, root, task, kind, attempt = heappop(state.timers)
        run = state.find(root)
        one = run.open.get(task) if run else None
        if one is None or (one.assignment.kind, one.assignment.attempt) != (kind, attempt):
            continue
        need = run.needs.get(one.assignment.role) if run else None
        if one.asked:
            effects.append(Recheck(one.assignment, need))
            one.looks += 1
        else:
            effects.append(Ask(one.assignment, need))
            one.asked = True
        state.wake(now + _wait_s(one.looks), one.assignment)
    return effects


def _wait_s(looks: int) -> float:
    """Two looks soon after each other, since only the second may call a task lost; then longer."""
    if looks % 2:
        return CONFIRM_S
    return min(RECHECK_S * 2.0 ** (looks // 2), RECHECK_S_MAX)


DISPATCH = Manager(
    name="dispatch",
    events=_BEGINNINGS | _HANDLERS.keys(),
    initial=Dispatch,
    react=react,
    due=due,
    waiting=waiting,
    dump=dump,
    references=references,
    load=load,
    version=2,
)
