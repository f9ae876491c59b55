"""An execution: one run of a workflow, from planning to completed, failed or cancelled.

The task graph is walked with integers (see `plan`), so that a completed task costs its successors
and never the workflow. What a task's turn may become in later patterns (delegate, hand off) joins
here; a turn of the task graph is the task's attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aggregates.decider import Blueprint, Decider, Reference
from aggregates.execution_state import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    SCHEDULED,
    Execution,
)
from aggregates.problem import Refused
from aggregates.schedule import choose, retry_delay_ms

OUTPUT_TASKS_MAX = 16
"""An execution's output carries those of its last tasks, up to so many (each is bounded itself)."""


# Commands ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class StartExecution:
    """Run one revision of a workflow (0: the newest)."""

    workflow_id: str
    revision: int = 0
    input: Any = None
    max_parallel_tasks: int | None = None
    _blueprint: Blueprint | None = field(default=None, init=False)


@dataclass(slots=True)
class StartTask:
    """An agent says that it has begun an attempt; may be left out before Complete or Fail."""

    task: str
    attempt: int
    agent: str


@dataclass(slots=True)
class CompleteTask:
    """An agent delivers the output of an attempt."""

    task: str
    attempt: int
    agent: str
    output: Any = None
    started_at: str | None = None


@dataclass(slots=True)
class FailTask:
    """An agent could not do an attempt; `retryable` false ends the task at once."""

    task: str
    attempt: int
    agent: str
    error: str
    retryable: bool = True
    started_at: str | None = None


@dataclass(slots=True)
class PauseExecution:
    """Schedule nothing new; what runs may finish."""

    reason: str = ""


@dataclass(slots=True)
class ResumeExecution:
    """Go on after a pause."""

    reason: str = ""


@dataclass(slots=True)
class CancelExecution:
    """End the execution; answers that arrive later are refused and recorded."""

    reason: str = ""


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class ExecutionStarted:
    workflow_id: str
    revision: int
    digest: str
    name: str
    tasks: int
    phases: int
    max_parallel_tasks: int
    input: Any = None
    _blueprint: Blueprint | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class PhaseEntered:
    phase: int
    of: int


@dataclass(slots=True)
class TaskScheduled:
    task: str
    attempt: int
    role: str
    phase: int
    priority: int = 0
    delay_ms: int = 0


@dataclass(slots=True)
class TaskStarted:
    task: str
    attempt: int
    agent: str
    started_at: str | None = None


@dataclass(slots=True)
class TaskCompleted:
    task: str
    attempt: int
    agent: str
    output: Any = None


@dataclass(slots=True)
class TaskFailed:
    task: str
    attempt: int
    agent: str
    error: str
    retried: bool


@dataclass(slots=True)
class TaskCancelled:
    task: str
    attempt: int


@dataclass(slots=True)
class ExecutionPaused:
    reason: str


@dataclass(slots=True)
class ExecutionResumed:
    reason: str


@dataclass(slots=True)
class ExecutionCompleted:
    tasks: int
    output: dict[str, Any] | None = None


@dataclass(slots=True)
class ExecutionFailed:
    reason: str
    task: str | None = None


@dataclass(slots=True)
class ExecutionCancelled:
    reason: str


# Decisions --------------------------------------------------------------------------------------


def decide(state: Execution, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    match command:
        case StartExecution():
            return _start(state, command)
        case _ if state.plan is None:
            raise Refused("UNKNOWN_EXECUTION", f"There is no execution {state.id}; start it first.")
        case CompleteTask():
            return _complete(state, command)
        case StartTask():
            return _begin(state, command)
        case FailTask():
            return _fail(state, command)
        case PauseExecution():
            return [ExecutionPaused(command.reason)] if _live(state) == "executing" else []
        case ResumeExecution():
            if _live(state) != "paused":
                return []
            return [ExecutionResumed(command.reason), *_schedule(state, [], state.in_flight)]
        case CancelExecution():
            if state.terminal:
                return []
            return [*_cancel_open(state), ExecutionCancelled(command.reason)]
    raise Refused("UNKNOWN_COMMAND", f"An execution cannot {type(command).__name__}.")


def _live(state: Execution) -> str:
    """The status of an execution that has not ended; refuses where it has."""
    if state.terminal:
        raise Refused("EXECUTION_ENDED", f"The execution {state.id} has {state.status}.")
    return state.status


def _start(state: Execution, command: StartExecution) -> list[Any]:
    if state.plan is not None:
        if state.workflow_id == command.workflow_id:
            return []
        raise Refused("EXECUTION_EXISTS", f"{state.id} already runs {state.workflow_id}.")
    found = command._blueprint
    if found is None:
        wanted = f" in revision {command.revision}" if command.revision else ""
        raise Refused(
            "UNKNOWN_WORKFLOW",
            f"There is no workflow {command.workflow_id}{wanted}; create it first.",
        )
    if found.archived:
        raise Refused("WORKFLOW_ARCHIVED", f"The workflow {found.workflow_id} is archived.")
    plan = found.plan
    limit = plan.definition.max_parallel_tasks
    if command.max_parallel_tasks is not None:
        if command.max_parallel_tasks < 1:
            raise Refused("INVALID_VALUE", "max_parallel_tasks must be at least 1.")
        limit = min(limit, command.max_parallel_tasks)
    started = ExecutionStarted(
        workflow_id=found.workflow_id,
        revision=found.revision,
        digest=found.digest,
        name=plan.definition.name,
        tasks=len(plan.ids),
        phases=plan.phases,
        max_parallel_tasks=limit,
        input=command.input,
        _blueprint=found,
    )
    begun = evolve(Execution(state.id), started)
    return [started, PhaseEntered(1, plan.phases), *_schedule(begun, [], 0)]


def _begin(state: Execution, command: StartTask) -> list[Any]:
    task = _attempt(state, command)
    if task is None or state.task_status[task] == RUNNING:
        return []
    return [TaskStarted(command.task, command.attempt, command.agent)]


def _complete(state: Execution, command: CompleteTask) -> list[Any]:
    task = _attempt(state, command)
    if task is None:
        return []
    events = _started(state, task, command)
    events.append(TaskCompleted(command.task, command.attempt, command.agent, command.output))
    events += _phases(state, task)
    if state.done + 1 == len(state.task_status):
        return [*events, ExecutionCompleted(state.done + 1, _output(state, task, command.output))]
    plan, waiting = state.plan, state.waiting
    assert plan is not None
    freed = [s for s in plan.successors[task] if waiting[s] == 1]
    return events + _schedule(state, freed, state.in_flight - 1, leaving=task)


def _fail(state: Execution, command: FailTask) -> list[Any]:
    task = _attempt(state, command)
    if task is None:
        return []
    assert state.plan is not None
    policy = state.plan.definition.tasks[task].retry_policy
    retried = command.retryable and command.attempt < policy.max_attempts
    events = _started(state, task, command)
    events.append(TaskFailed(command.task, command.attempt, command.agent, command.error, retried))
    if retried:
        return events + _schedule(state, [task], state.in_flight - 1, leaving=task)
    events += _cancel_open(state, but=task)
    reason = f"The task failed in attempt {command.attempt}: {command.error}"
    return [*events, ExecutionFailed(reason, command.task)]


def _attempt(state: Execution, said: StartTask | CompleteTask | FailTask) -> int | None:
    """The task that an answer is about; None where the same answer was accepted before."""
    assert state.plan is not None
    task = state.plan.index.get(said.task)
    if task is None:
        raise Refused("UNKNOWN_TASK", f"The execution {state.id} has no task {said.task!r}.")
    status, current = state.task_status[task], state.attempts[task]
    if said.attempt != current or status == PENDING:
        raise Refused(
            "LATE_ANSWER",
            f"The task {said.task!r} is in attempt {current}, the answer is for {said.attempt}.",
        )
    holder = state.agents.get(task)
    if holder is not None and holder != said.agent:
        raise Refused("NOT_YOURS", f"The task {said.task!r} is held by another agent.")
    if status in (SCHEDULED, RUNNING):
        return task
    expected = FAILED if isinstance(said, FailTask) else COMPLETED
    if status == expected or isinstance(said, StartTask):
        return None
    raise Refused("LATE_ANSWER", f"The task {said.task!r} has ended otherwise.")


def _started(state: Execution, task: int, said: CompleteTask | FailTask) -> list[Any]:
    if state.task_status[task] == RUNNING:
        return []
    return [TaskStarted(said.task, said.attempt, said.agent, said.started_at)]


def _phases(state: Execution, task: int) -> list[Any]:
    """The phases that are entered when `task` completes, in order."""
    assert state.plan is not None
    own, of = state.plan.phase[task], state.plan.phases
    if own != state.phase or state.phase_open[own] > 1:
        return []
    entered = []
    for phase in range(own + 1, of + 1):
        entered.append(PhaseEntered(phase, of))
        if state.phase_open[phase]:
            break
    return entered


def _schedule(
    state: Execution, freed: list[int], in_flight: int, leaving: int | None = None
) -> list[Any]:
    if state.status == "paused" and leaving is not None:
        return []
    plan = state.plan
    assert plan is not None
    events = []
    for task in choose(state, freed, in_flight, leaving):
        attempt = state.attempts[task] + 1
        definition = plan.definition.tasks[task]
        delay_ms = retry_delay_ms(definition.retry_policy, attempt, f"{state.id}/{task}")
        events.append(
            TaskScheduled(
                plan.ids[task],
                attempt,
                definition.agent_role,
                plan.phase[task],
                definition.priority,
                delay_ms,
            )
        )
    return events


def _cancel_open(state: Execution, but: int | None = None) -> list[Any]:
    assert state.plan is not None
    return [
        TaskCancelled(state.plan.ids[task], state.attempts[task])
        for task, status in enumerate(state.task_status)
        if status in (SCHEDULED, RUNNING) and task != but
    ]


def _output(state: Execution, last: int, output: Any) -> dict[str, Any] | None:
    assert state.plan is not None
    sinks = state.plan.sinks
    if len(sinks) > OUTPUT_TASKS_MAX:
        return None
    return {
        state.plan.ids[sink]: output if sink == last else state.outputs.get(sink) for sink in sinks
    }


# State ------------------------------------------------------------------------------------------


def evolve(state: Execution, event: Any) -> Execution:
    """The state after a fact; never fails, never judges."""
    match event:
        case TaskCompleted():
            state.completed(event.task, event.output)
        case TaskScheduled():
            state.scheduled(event.task, event.attempt)
        case TaskStarted():
            state.started(event.task, event.agent)
        case PhaseEntered():
            state.phase = event.phase
        case ExecutionStarted(_blueprint=Blueprint() as found):
            state.begin(found, event.max_parallel_tasks)
        case TaskFailed():
            state.failed(event.task, event.retried)
        case TaskCancelled():
            state.ended(event.task, CANCELLED)
        case ExecutionPaused():
            state.status = "paused"
        case ExecutionResumed():
            state.status = "executing"
        case ExecutionCompleted():
            state.end("completed")
        case ExecutionFailed():
            state.end("failed")
        case ExecutionCancelled():
            state.end("cancelled")
    return state


def reference(of: Any) -> Reference | None:
    """The workflow revision that a command, an event or a dumped state refers to."""
    match of:
        case StartExecution() | ExecutionStarted():
            return Reference(of.workflow_id, of.revision)
        case {"workflow_id": str(workflow_id), "revision": int(revision)}:
            return Reference(workflow_id, revision)
    return None


EXECUTION = Decider(
    name="execution",
    commands=(
        StartExecution,
        StartTask,
        CompleteTask,
        FailTask,
        PauseExecution,
        ResumeExecution,
        CancelExecution,
    ),
    events=(
        ExecutionStarted,
        PhaseEntered,
        TaskScheduled,
        TaskStarted,
        TaskCompleted,
        TaskFailed,
        TaskCancelled,
        ExecutionPaused,
        ExecutionResumed,
        ExecutionCompleted,
        ExecutionFailed,
        ExecutionCancelled,
    ),
    initial=Execution,
    decide=decide,
    evolve=evolve,
    dump=Execution.dump,
    load=Execution.load,
    reference=reference,
)
