"""How an execution pauses, and how it ends before it is complete: a task failed, it was cancelled,
its time is over.

Whatever is open is cancelled. Where completed tasks can be undone, the end waits until they are
(see `execution_compensation`); else it comes at once. It comes once.
"""

from __future__ import annotations

from typing import Any

from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    PauseExecution,
    ResumeExecution,
    TimeOutExecution,
)
from aggregates.execution_events import (
    CompensationStarted,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    TaskCancelled,
)
from aggregates.execution_state import (
    PENDING,
    RUNNING,
    SCHEDULED,
    WAITING,
    Execution,
)
from aggregates.problem import Refused, bounded
from aggregates.schedule import schedule

DEADLOCK = "DEADLOCK: Nothing runs, nothing is ready, and nothing that is waited for can come."


def pause(state: Execution, command: PauseExecution) -> list[Any]:
    """Schedule nothing new until it is resumed; nothing where it is paused."""
    if state.undoing.outcome:
        detail = f"The execution {state.id} is being undone before it ends as "
        raise Refused("COMPENSATING", f"{detail}{state.undoing.outcome}; that cannot be paused.")
    return [ExecutionPaused(command.reason)] if _live(state) == "executing" else []


def resume(state: Execution, command: ResumeExecution) -> list[Any]:
    """Go on after a pause; nothing where there is none."""
    if _live(state) != "paused":
        return []
    return [ExecutionResumed(command.reason), *schedule(state, [], state.in_flight)]


def _live(state: Execution) -> str:
    """The status of an execution that has not ended; refuses where it has."""
    if state.terminal:
        raise Refused("EXECUTION_ENDED", f"The execution {state.id} has {state.status}.")
    return state.status


def cancel(state: Execution, command: CancelExecution) -> list[Any]:
    """End the execution; nothing where it has ended, or is being undone already."""
    return [] if over(state) else end(state, "cancelled", command.reason)


def time_out(state: Execution, command: TimeOutExecution) -> list[Any]:
    """Fail the execution; nothing where it has ended, or is being undone already."""
    if over(state):
        return []
    why = command.reason or "The execution took longer than it may."
    return end(state, "failed", bounded(f"TIMED_OUT: {why}"))


def check(state: Execution, command: CheckExecution) -> list[Any]:
    """Schedule what could run and does not; fail where nothing can ever happen."""
    if over(state) or state.status == "paused":
        return []
    if overlooked := schedule(state, [], state.in_flight):
        return overlooked
    return end(state, "failed", DEADLOCK) if deadlocked(state) else []


def over(state: Execution) -> bool:
    """Whether the execution has ended, or will when all is undone."""
    return state.terminal or bool(state.undoing.outcome)


def deadlocked(state: Execution, leaving: int | None = None) -> bool:
    """Whether nothing can ever happen, once `leaving` has left and nothing was scheduled.

    A task that waits for an input or for a signal can still get it.
    """
    in_flight = state.in_flight - (leaving is not None)
    if in_flight or state.ready or state.status == "paused" or WAITING in state.task_status:
        return False
    assert state.plan is not None
    return not any(
        state.task_status[task] == PENDING
        for name, tasks in state.plan.signals.items()
        if name not in state.signals
        for task in tasks
    )


def end(
    state: Execution,
    outcome: str,
    reason: str,
    failed: int | None = None,
    completing: int | None = None,
) -> list[Any]:
    """What ends an execution: at once, or after what `failed` or was `completing` and others have
    left behind is undone.
    """
    plan = state.plan
    assert plan is not None
    events = _cancel_open(state, failed if completing is None else completing)
    order = state.undoing.order
    if completing is not None and completing in plan.undoing:
        order = [*order, completing]
    task = None if failed is None else plan.ids[failed]
    tasks = [plan.ids[number] for number in reversed(order)]
    if not tasks:
        return [*events, last(outcome, reason, task)]
    if plan.definition.coordination.compensation == "manual":
        return [*events, last(outcome, reason, task, [], tasks)]
    return [*events, CompensationStarted(outcome, reason, task, tasks)]


def last(
    outcome: str,
    reason: str,
    task: str | None,
    compensated: list[str] | None = None,
    not_compensated: list[str] | None = None,
) -> Any:
    """The event that ends an execution."""
    if outcome == "cancelled":
        return ExecutionCancelled(reason, compensated, not_compensated)
    return ExecutionFailed(reason, task, compensated, not_compensated)


def _cancel_open(state: Execution, but: int | None) -> list[Any]:
    """What has begun must end: tasks in flight, and those that wait for a further attempt."""
    assert state.plan is not None
    return [
        TaskCancelled(state.plan.ids[task], attempt)
        for task, (status, attempt) in enumerate(
            zip(state.task_status, state.attempts, strict=True)
        )
        if task != but
        and (status in (SCHEDULED, RUNNING, WAITING) or (status == PENDING and attempt))
    ]
