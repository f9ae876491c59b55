"""An execution: one run of a workflow, from planning to completed, failed or cancelled.

The task graph is walked with integers (see `plan`), so that a completed task costs its successors
and never the workflow. This file is the table of contents: which function decides on a command, and
what each event changes. What a task's turn may become in later patterns (delegate, hand off) joins
here; a turn of the task graph is the task's attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from aggregates import (
    execution_compensation,
    execution_ending,
    execution_input,
    execution_start,
    execution_tasks,
)
from aggregates.decider import Blueprint, Decider, Reference
from aggregates.execution_commands import (
    COMMANDS,
    CancelExecution,
    CheckExecution,
    CompensateTask,
    CompleteCompensation,
    CompleteTask,
    EndCompensation,
    FailCompensation,
    FailTask,
    PauseExecution,
    ProvideInput,
    RequestInput,
    ResumeExecution,
    RetryCompensation,
    RetryExecution,
    SignalExecution,
    StartExecution,
    StartTask,
    TimeOutCompensation,
    TimeOutExecution,
    TimeOutTask,
)
from aggregates.execution_events import (
    EVENTS,
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
    ExecutionStarted,
    InputProvided,
    InputRequested,
    PhaseEntered,
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
from aggregates.execution_snapshot import dump, load
from aggregates.execution_state import Execution
from aggregates.problem import Refused

REVISION_MAX = 2**31 - 1  # what the log's column holds; a larger one is looked for nowhere

DECISIONS: dict[type[Any], Callable[[Execution, Any], list[Any]]] = {
    StartExecution: execution_start.start,
    StartTask: execution_tasks.begin,
    CompleteTask: execution_tasks.complete,
    FailTask: execution_tasks.fail,
    TimeOutTask: execution_tasks.time_out,
    RequestInput: execution_input.request,
    ProvideInput: execution_input.provide,
    SignalExecution: execution_input.signal,
    PauseExecution: execution_ending.pause,
    ResumeExecution: execution_ending.resume,
    CancelExecution: execution_ending.cancel,
    TimeOutExecution: execution_ending.time_out,
    CheckExecution: execution_ending.check,
    RetryExecution: execution_start.retry,
    CompensateTask: execution_compensation.compensate,
    CompleteCompensation: execution_compensation.complete,
    FailCompensation: execution_compensation.fail,
    TimeOutCompensation: execution_compensation.time_out,
    RetryCompensation: execution_compensation.retry,
    EndCompensation: execution_compensation.finish,
}


def decide(state: Execution, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    decision = DECISIONS.get(type(command))
    if decision is None:
        raise Refused("UNKNOWN_COMMAND", f"An execution cannot {type(command).__name__}.")
    if state.plan is None and decision is not execution_start.start:
        raise Refused("UNKNOWN_EXECUTION", f"There is no execution {state.id}; start it first.")
    return decision(state, command)


def evolve(state: Execution, event: Any) -> Execution:
    """The state after a fact; never fails, never judges."""
    match event:
        case TaskCompleted():
            state.completed(event.task, event.output)
        case TaskScheduled():
            state.scheduled(event.task, event.attempt)
        case TaskStarted() | TaskTakenOver():
            state.started(event.task, event.agent, event.delivery)
        case PhaseEntered():
            state.phase = event.phase
        case ExecutionStarted(_blueprint=Blueprint() as found):
            execution_start.started(state, event, found)
        case TaskFailed():
            state.failed(event.task, event.retried)
        case TaskTimedOut():
            state.timed_out(event.task, event.retried)
        case TaskCancelled():
            state.cancelled(event.task)
        case InputRequested():
            execution_input.requested(state, event)
        case InputProvided():
            execution_input.provided(state, event)
        case SignalReceived():
            execution_input.heard(state, event.name)
        case ExecutionPaused():
            state.status = "paused"
        case ExecutionResumed():
            state.status = "executing"
        case ExecutionRetried():
            execution_start.retried(state, event)
        case ExecutionCompleted():
            state.end("completed")
        case ExecutionFailed():
            state.end("failed")
        case ExecutionCancelled():
            state.end("cancelled")
        case _:
            _undo(state, event)
    return state


def _undo(state: Execution, event: Any) -> None:
    """What changes while completed tasks are undone."""
    match event:
        case CompensationStarted():
            state.undo(event.outcome, event.reason, event.task, event.tasks)
        case CompensationScheduled():
            state.undoing.scheduled(state.number(event.task), event.attempt)
        case TaskCompensated():
            state.undoing.undone(state.number(event.task), event.agent)
        case CompensationFailed():
            state.undoing.failed(state.number(event.task), event.agent)
        case CompensationParked():
            state.undoing.park(state.number(event.task))


def reference(of: Any) -> Reference | None:
    """The workflow revision that a command, an event or a dumped state refers to."""
    match of:
        case StartExecution() if not 0 <= of.revision <= REVISION_MAX:
            return None
        case StartExecution() | ExecutionStarted() | ExecutionRetried():
            return Reference(of.workflow_id, of.revision)
        case {"workflow_id": str(workflow_id), "revision": int(revision)}:
            return Reference(workflow_id, revision)
    return None


EXECUTION = Decider(
    name="execution",
    commands=COMMANDS,
    events=EVENTS,
    initial=Execution,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
    reference=reference,
)
