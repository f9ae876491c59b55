"""Undoing what was completed, in reverse order, when an execution ends early (R31).

A process manager says which task is next, agents say how it went; the order is kept here, whatever
is said. A task that cannot be undone is parked for a person, and the others still are undone.
"""

from __future__ import annotations

from typing import Any

from aggregates.execution_answers import check_sender, find
from aggregates.execution_commands import (
    CompensateTask,
    CompleteCompensation,
    EndCompensation,
    FailCompensation,
    RetryCompensation,
    TimeOutCompensation,
)
from aggregates.execution_ending import last
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    TaskCompensated,
)
from aggregates.execution_state import Execution
from aggregates.execution_undoing import OPEN, PARKED, SCHEDULED, UNDONE, Undo
from aggregates.problem import Refused, bounded
from aggregates.schedule import may_retry, retry_delay_ms

ATTEMPTS_MAX = 1_000  # of undoing one task, by however many persons


def compensate(state: Execution, command: CompensateTask) -> list[Any]:
    """Ask for a task to be undone; nothing where that was asked before."""
    task = find(state, command.task)
    _check_under_way(state)
    undo = state.undoing.tasks.get(task)
    if undo is None:
        raise _not_undoable(command.task)
    if undo.status != OPEN:
        return []
    for later, other in state.undoing.tasks.items():
        if later == task:
            break
        if not other.settled:
            assert state.plan is not None
            detail = f"The task {state.plan.ids[later]!r} completed later; it is undone first."
            raise Refused("OUT_OF_ORDER", detail)
    return [_schedule(state, task, 1)]


def complete(state: Execution, command: CompleteCompensation) -> list[Any]:
    """An agent has undone a task."""
    task = _accept(state, command)
    if task is None:
        return []
    return [TaskCompensated(command.task, command.attempt, command.agent, command.output)]


def fail(state: Execution, command: FailCompensation) -> list[Any]:
    """An agent could not undo a task: it is tried again, or parked."""
    task = _accept(state, command)
    if task is None:
        return []
    return _failed(state, task, command.agent, command.error, command.retryable)


def time_out(state: Execution, command: TimeOutCompensation) -> list[Any]:
    """Undoing a task took too long, which is a failed attempt; nothing where it is over."""
    task = find(state, command.task)
    undo = state.undoing.tasks.get(task)
    if undo is None or (undo.status, undo.attempt) != (SCHEDULED, command.attempt):
        return []
    return _failed(state, task, None, bounded(f"TIMED_OUT: {command.reason}"), True)


def retry(state: Execution, command: RetryCompensation) -> list[Any]:
    """Have a parked task undone after all, also after the end; nothing where that is under way.

    Where the workflow leaves undoing to people, all its tasks count as parked at the end.
    """
    task = find(state, command.task)
    undo = state.undoing.tasks.get(task)
    if undo is None:
        if state.status not in ("failed", "cancelled") or task not in state.undoing.order:
            raise _not_undoable(command.task)
        undo = Undo(PARKED)
    if undo.status != PARKED:
        return []
    if undo.attempt >= ATTEMPTS_MAX:
        detail = f"Undoing {command.task!r} was tried {undo.attempt} times; undo it by hand."
        raise Refused("TOO_MANY_ATTEMPTS", detail)
    return [_schedule(state, task, undo.attempt + 1)]


def finish(state: Execution, command: EndCompensation) -> list[Any]:
    """End the execution, and say what was undone and what was not."""
    if state.terminal:
        return []
    _check_under_way(state)
    undoing, plan = state.undoing, state.plan
    assert plan is not None
    left = [plan.ids[task] for task, undo in undoing.tasks.items() if not undo.settled]
    if left:
        detail = f"{len(left)} tasks are still to be undone, {left[0]!r} first."
        raise Refused("COMPENSATING", detail)
    undone = [plan.ids[task] for task, undo in undoing.tasks.items() if undo.status == UNDONE]
    others = [plan.ids[task] for task, undo in undoing.tasks.items() if undo.status != UNDONE]
    return [last(undoing.outcome, undoing.reason, undoing.task, undone, others)]


def _check_under_way(state: Execution) -> None:
    if not state.undoing.outcome:
        detail = f"Nothing of the execution {state.id} is being undone; it is {state.status}."
        raise Refused("NOT_COMPENSATING", detail)


def _not_undoable(task_id: str) -> Refused:
    return Refused("NOT_COMPENSABLE", f"There is nothing to undo of the task {task_id!r}.")


def _accept(state: Execution, said: CompleteCompensation | FailCompensation) -> int | None:
    """The task that an answer is about; None where the same answer was accepted before."""
    task = find(state, said.task)
    check_sender(said)
    undo = state.undoing.tasks.get(task)
    if undo is None:
        raise _not_undoable(said.task)
    if (undo.status, undo.attempt) == (SCHEDULED, said.attempt):
        return task
    ended = undo.attempt - (undo.status == SCHEDULED)
    done = undo.status == UNDONE
    if (said.attempt, said.agent) == (ended, undo.agent) and done == isinstance(
        said, CompleteCompensation
    ):
        return None
    if done and said.attempt == ended and said.agent != undo.agent:
        raise Refused("NOT_YOURS", f"The task {said.task!r} was undone by another agent.")
    detail = f"Undoing {said.task!r} is in attempt {undo.attempt}, the answer is for "
    raise Refused("LATE_ANSWER", f"{detail}{said.attempt}, or it has ended.")


def _failed(
    state: Execution, task: int, agent: str | None, error: str, retryable: bool
) -> list[Any]:
    plan = state.plan
    assert plan is not None
    task_id, undo = plan.ids[task], state.undoing.tasks[task]
    policy = plan.definition.tasks[task].retry_policy
    counted = undo.attempt - undo.uncounted
    retried = retryable and may_retry(policy, counted, error)
    said = CompensationFailed(task_id, undo.attempt, agent, error, retried)
    if not retried:
        return [said, CompensationParked(task_id, undo.attempt, bounded(error))]
    delay_ms = retry_delay_ms(policy, counted + 1, f"{state.id}/{task}/undo")
    return [said, _schedule(state, task, undo.attempt + 1, delay_ms)]


def _schedule(
    state: Execution, task: int, attempt: int, delay_ms: int = 0
) -> CompensationScheduled:
    assert state.plan is not None
    role, action = state.plan.undoing[task]
    return CompensationScheduled(state.plan.ids[task], attempt, role, action, delay_ms)
