"""An execution starts, and starts again from where it failed."""

from __future__ import annotations

from typing import Any

from aggregates.decider import Blueprint
from aggregates.definition import parse_policy
from aggregates.definitions.model import policy_to_store, stored_policy
from aggregates.definitions.shape import ATTEMPTS_MAX, SECONDS_MAX
from aggregates.execution_answers import find
from aggregates.execution_commands import RetryExecution, StartExecution
from aggregates.execution_events import ExecutionRetried, ExecutionStarted, PhaseEntered
from aggregates.execution_input import check_size
from aggregates.execution_state import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    TIMED_OUT,
    Execution,
)
from aggregates.problem import Refused
from aggregates.room import Room, room
from aggregates.schedule import schedule

ATTEMPTS_IN_ALL_MAX = 255  # an attempt's number is one byte


def start(state: Execution, command: StartExecution) -> list[Any]:
    """Begin with the first phase; nothing where the same workflow was started before."""
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
    seconds = command.timeout_seconds
    if seconds is not None and not 0 < seconds <= SECONDS_MAX:
        detail = f"`timeout_seconds` is more than 0 and at most {SECONDS_MAX:,.0f}."
        raise Refused("INVALID_VALUE", detail, "/timeout_seconds")
    check_size("input", command.input, "/input")
    policy = None if command.retry_policy is None else parse_policy(command.retry_policy)
    plan = found.plan
    limit = plan.definition.max_parallel_tasks
    if command.max_parallel_tasks is not None:
        if command.max_parallel_tasks < 1:
            detail = "`max_parallel_tasks` must be at least 1."
            raise Refused("INVALID_VALUE", detail, "/max_parallel_tasks")
        limit = min(limit, command.max_parallel_tasks)
    most = room(plan.definition, command.max_cpu, command.max_memory)
    started = ExecutionStarted(
        workflow_id=found.workflow_id,
        revision=found.revision,
        digest=found.digest,
        name=plan.definition.name,
        tasks=len(plan.ids),
        phases=plan.phases,
        max_parallel_tasks=limit,
        input=command.input,
        timeout_seconds=seconds,
        retry_policy=policy_to_store(policy),
        max_cpu=command.max_cpu,
        max_memory=command.max_memory,
        _blueprint=found,
    )
    begun = Execution(state.id)
    begun.begin(found, limit)
    begun.room = most
    return [started, PhaseEntered(1, plan.phases), *schedule(begun, [], 0)]


def started(state: Execution, event: ExecutionStarted, found: Blueprint) -> None:
    """The state after the start."""
    state.begin(found, event.max_parallel_tasks)
    state.input, state.timeout_seconds = event.input, event.timeout_seconds
    state.policy = stored_policy(event.retry_policy)
    if event.max_cpu is not None or event.max_memory is not None:
        state.room = Room(event.max_cpu, event.max_memory)


def retry(state: Execution, command: RetryExecution) -> list[Any]:
    """Go on after a failure: what failed or was cancelled then is open again.

    What was undone cannot be gone on with. Attempt numbers go on rising, so that no answer to an
    earlier attempt can be taken for one to a later.
    """
    plan = state.plan
    assert plan is not None
    named = None if command.task is None else find(state, command.task, "/task")
    if state.status != "failed":
        raise Refused("NOT_FAILED", f"The execution {state.id} is {state.status}, not failed.")
    if state.undoing.tasks:
        raise Refused("COMPENSATED", "Tasks of the execution were undone; start another one.")
    status, attempts = state.task_status, state.attempts
    open_again = [task for task, now in enumerate(status) if now in (FAILED, TIMED_OUT, CANCELLED)]
    if named is not None and named not in open_again:
        raise Refused("NOT_FAILED", f"The task {command.task!r} has not failed.", "/task")
    for task_id, value in command.inputs.items():
        where = f"/inputs/{task_id}"
        if status[find(state, task_id, where)] == COMPLETED:
            raise Refused("TASK_COMPLETED", f"The task {task_id!r} will not run again.", where)
        check_size("input", value, where)
    for task in open_again:
        if attempts[task] > ATTEMPTS_IN_ALL_MAX - ATTEMPTS_MAX:
            detail = f"The task {plan.ids[task]!r} was tried {attempts[task]} times; start anew."
            raise Refused("TOO_MANY_ATTEMPTS", detail)
    said = ExecutionRetried(
        workflow_id=state.workflow_id,
        revision=state.revision,
        digest=state.digest,
        tasks=[plan.ids[task] for task in open_again],
        reason=command.reason,
        input=state.input,
        inputs=state.inputs | command.inputs,
        timeout_seconds=state.timeout_seconds,
        retry_policy=policy_to_store(state.policy),
    )
    again = (*open_again, *(task for task, now in enumerate(status) if now == PENDING))
    ready = [task for task in again if state.waiting[task] == 0]
    return [said, *schedule(state, ready, 0, at_once=True)]


def retried(state: Execution, event: ExecutionRetried) -> None:
    """The state after a retry: these tasks have all the attempts again that their policy allows."""
    state.status = "executing"
    state.inputs = dict(event.inputs)
    for task_id in event.tasks:
        task = state.number(task_id)
        if state.task_status[task] != FAILED:
            state.agents.pop(task, None)
        state.task_status[task] = PENDING
        state.uncounted[task] = state.attempts[task]
    state.find_ready()
