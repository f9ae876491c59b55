"""An execution: one run of a workflow, from planning to completed, failed or cancelled.

The task graph is walked with integers (see `plan`), so that a completed task costs its successors
and never the workflow. What a task's turn may become in later patterns (delegate, hand off) joins
here; a turn of the task graph is the task's attempt.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aggregates.decider import Blueprint, Decider, Reference
from aggregates.execution_answers import accept, unsaid_start
from aggregates.execution_commands import (
    COMMANDS,
    CancelExecution,
    CompleteTask,
    FailTask,
    PauseExecution,
    ResumeExecution,
    StartExecution,
    StartTask,
)
from aggregates.execution_events import (
    EVENTS,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    PhaseEntered,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
)
from aggregates.execution_state import PENDING, RUNNING, SCHEDULED, Execution
from aggregates.problem import Refused, bounded
from aggregates.schedule import choose, may_retry, retry_delay_ms

OUTPUT_TASKS_MAX = 16
"""An execution's output carries those of its last tasks, up to so many (each is bounded itself)."""

REVISION_MAX = 2**31 - 1  # what the log's column holds; a larger one is looked for nowhere


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
    task = accept(state, command)
    if task is None:
        return []
    return unsaid_start(state, task, command)


def _complete(state: Execution, command: CompleteTask) -> list[Any]:
    task = accept(state, command)
    if task is None:
        return []
    events = unsaid_start(state, task, command)
    events.append(TaskCompleted(command.task, command.attempt, command.agent, command.output))
    events += _phases(state, task)
    if state.done + 1 == len(state.task_status):
        return [*events, ExecutionCompleted(state.done + 1, _output(state, task, command.output))]
    plan, waiting = state.plan, state.waiting
    assert plan is not None
    freed = [s for s in plan.successors[task] if waiting[s] == 1]
    return events + _schedule(state, freed, state.in_flight - 1, leaving=task)


def _fail(state: Execution, command: FailTask) -> list[Any]:
    task = accept(state, command)
    if task is None:
        return []
    assert state.plan is not None
    policy = state.plan.definition.tasks[task].retry_policy
    retried = command.retryable and may_retry(policy, command.attempt, command.error)
    events = unsaid_start(state, task, command)
    events.append(TaskFailed(command.task, command.attempt, command.agent, command.error, retried))
    if retried:
        return events + _schedule(state, [task], state.in_flight - 1, leaving=task)
    events += _cancel_open(state, but=task)
    reason = bounded(f"The task failed in attempt {command.attempt}: {command.error}")
    return [*events, ExecutionFailed(reason, command.task)]


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
    """What has begun must end: tasks in flight, and those that wait for a further attempt."""
    assert state.plan is not None
    return [
        TaskCancelled(state.plan.ids[task], attempt)
        for task, (status, attempt) in enumerate(
            zip(state.task_status, state.attempts, strict=True)
        )
        if task != but and (status in (SCHEDULED, RUNNING) or (status == PENDING and attempt))
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
        case TaskStarted() | TaskTakenOver():
            state.started(event.task, event.agent)
        case PhaseEntered():
            state.phase = event.phase
        case ExecutionStarted(_blueprint=Blueprint() as found):
            state.begin(found, event.max_parallel_tasks)
        case TaskFailed():
            state.failed(event.task, event.retried)
        case TaskCancelled():
            state.cancelled(event.task)
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
        case StartExecution() if not 0 <= of.revision <= REVISION_MAX:
            return None
        case StartExecution() | ExecutionStarted():
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
    dump=Execution.dump,
    load=Execution.load,
    reference=reference,
)
