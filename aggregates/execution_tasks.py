"""The turns of a task: an agent begins it, completes it, fails it, or takes too long."""

from __future__ import annotations

from typing import Any

from aggregates.execution_answers import accept, find, unsaid_start
from aggregates.execution_commands import CompleteTask, FailTask, StartTask, TimeOutTask
from aggregates.execution_ending import DEADLOCK, deadlocked, end
from aggregates.execution_events import (
    ExecutionCompleted,
    PhaseEntered,
    TaskCompleted,
    TaskFailed,
    TaskTimedOut,
)
from aggregates.execution_state import OUTPUT_TASKS_MAX, RUNNING, SCHEDULED, Execution
from aggregates.problem import Refused, bounded
from aggregates.schedule import may_retry, schedule

TIMED_OUT = "TIMED_OUT"
"""What a retry policy calls an attempt that took too long, as it calls errors by their names."""


def begin(state: Execution, command: StartTask) -> list[Any]:
    """An agent has begun an attempt."""
    task = accept(state, command)
    return [] if task is None else unsaid_start(state, task, command)


def complete(state: Execution, command: CompleteTask) -> list[Any]:
    """An agent has done a task: others may begin, or the execution is complete."""
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
    follow = go_on(state, freed, task)
    if not follow and deadlocked(state, leaving=task):
        follow = end(state, "failed", DEADLOCK, completing=task)
    return events + follow


def fail(state: Execution, command: FailTask) -> list[Any]:
    """An agent could not do a task: it is tried again, or the execution ends."""
    task = accept(state, command)
    if task is None:
        return []
    retried = command.retryable and _allowed(state, task, command.error)
    events = unsaid_start(state, task, command)
    events.append(TaskFailed(command.task, command.attempt, command.agent, command.error, retried))
    if retried:
        return events + go_on(state, [task], task)
    reason = bounded(f"The task failed in attempt {command.attempt}: {command.error}")
    return events + end(state, "failed", reason, task)


def time_out(state: Execution, command: TimeOutTask) -> list[Any]:
    """Nobody has ended an attempt in time, or nobody has taken it; nothing if somebody has.

    An attempt that ran too long is one of the policy's; what nobody serves is not tried again.
    """
    task = find(state, command.task)
    if command.kind not in ("run", "queue"):
        raise Refused("INVALID_VALUE", '`kind` is "run" or "queue".', "/kind")
    expected = RUNNING if command.kind == "run" else SCHEDULED
    if (state.task_status[task], state.attempts[task]) != (expected, command.attempt):
        return []
    retried = command.kind == "run" and _allowed(state, task, TIMED_OUT)
    agent = state.agents.get(task) if expected == RUNNING else None
    said = TaskTimedOut(command.task, command.attempt, agent, command.kind, command.reason, retried)
    if retried:
        return [said, *go_on(state, [task], task)]
    what = "The task timed out" if command.kind == "run" else "No agent took the task"
    reason = bounded(f"{TIMED_OUT}: {what} in attempt {command.attempt}. {command.reason}".strip())
    return [said, *end(state, "failed", reason, task)]


def go_on(state: Execution, freed: list[int], leaving: int) -> list[Any]:
    """What is scheduled when `leaving` has made room and `freed` are ready; nothing in a pause."""
    if state.status == "paused":
        return []
    return schedule(state, freed, state.in_flight - 1, leaving)


def _allowed(state: Execution, task: int, error: str) -> bool:
    return may_retry(state.policy_of(task), state.counted(task, state.attempts[task]), error)


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


def _output(state: Execution, last: int, output: Any) -> dict[str, Any] | None:
    assert state.plan is not None
    sinks = state.plan.sinks
    if len(sinks) > OUTPUT_TASKS_MAX:
        return None
    return {
        state.plan.ids[sink]: output if sink == last else state.outputs.get(sink) for sink in sinks
    }
