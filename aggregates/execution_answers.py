"""Whose answer counts: what an agent says about a task is checked against who holds which attempt.

An answer that was accepted before changes nothing; one that comes too late or for a task that is
not there is refused, and the refusal recorded. An attempt whose agent died is delivered again, and
every delivery has a higher number: the highest that was heard of holds the attempt, and whoever had
it before is too late, whatever it says.
"""

from __future__ import annotations

from typing import Any

from aggregates.execution_commands import (
    CompleteCompensation,
    CompleteTask,
    FailCompensation,
    FailTask,
    RequestInput,
    StartTask,
)
from aggregates.execution_events import TaskStarted, TaskTakenOver
from aggregates.execution_state import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    SCHEDULED,
    WAITING,
    Execution,
)
from aggregates.problem import Refused

AGENT_BYTES_MAX = 200  # as every id: it is an index key in read models
DELIVERY_MAX = 2**63 - 1  # what JSON's readers agree on as a whole number

Answer = StartTask | CompleteTask | FailTask | RequestInput

_ENDED_BY: dict[type[Any], int] = {CompleteTask: COMPLETED, FailTask: FAILED, RequestInput: WAITING}


def accept(state: Execution, said: Answer) -> int | None:
    """The task that an answer is about; None where the same answer was accepted before."""
    task = find(state, said.task)
    check_sender(said)
    status, current, holder = state.task_status[task], state.attempts[task], state.agents.get(task)
    if said.attempt == current and status in (SCHEDULED, RUNNING):
        if status == RUNNING and (said.agent != holder or state.deliveries or said.delivery != 1):
            _check_delivery(state, task, said)
        return task
    if status in (PENDING, SCHEDULED):
        before = current if status == PENDING else current - 1
        if (said.attempt, said.agent) == (before, holder) and _ended_it(state, task, said):
            return None  # the next attempt waits or is under way
        raise _late(said, current)
    if said.attempt != current:
        raise _late(said, current)
    _check_delivery(state, task, said)
    if status == _ENDED_BY.get(type(said)) or (isinstance(said, StartTask) and holder is not None):
        return None
    raise Refused("LATE_ANSWER", f"The task {said.task!r} has ended otherwise.")


def find(state: Execution, task_id: str, pointer: str | None = None) -> int:
    """The number of a task; refuses where there is none of that name."""
    assert state.plan is not None
    task = state.plan.index.get(task_id)
    if task is None:
        detail = f"The execution {state.id} has no task {task_id!r}."
        raise Refused("UNKNOWN_TASK", detail, pointer)
    return task


def unsaid_start(state: Execution, task: int, said: Answer) -> list[Any]:
    """That the task has begun with this agent, where that was not known yet."""
    started_at = None if isinstance(said, StartTask) else said.started_at
    if state.task_status[task] != RUNNING:
        return [TaskStarted(said.task, said.attempt, said.agent, started_at, said.delivery)]
    again = isinstance(said, StartTask) and said.delivery > state.deliveries.get(task, 1)
    holder = state.agents.get(task)
    if again or holder != said.agent:
        told = (said.task, said.attempt, said.agent, started_at, said.delivery, holder)
        return [TaskTakenOver(*told)]
    return []


def check_sender(said: Answer | CompleteCompensation | FailCompensation) -> None:
    """Refuse an agent's name that no table can hold, and a delivery that no number is."""
    name = said.agent
    if not name or (len(name) * 4 > AGENT_BYTES_MAX and len(name.encode()) > AGENT_BYTES_MAX):
        raise Refused(
            "INVALID_VALUE", f"`agent` is a text of 1 to {AGENT_BYTES_MAX} bytes.", "/agent"
        )
    if not 1 <= said.delivery <= DELIVERY_MAX:
        raise Refused("INVALID_VALUE", "`delivery` counts 1, 2, 3 …", "/delivery")


def _check_delivery(state: Execution, task: int, said: Answer) -> None:
    """Refuse whoever had the attempt before somebody else, or never had it."""
    heard, holder = state.deliveries.get(task, 1), state.agents.get(task)
    if said.delivery < heard:
        detail = f"The task {said.task!r} was delivered again since, to {holder!r}."
        raise Refused("LATE_ANSWER", detail)
    if holder is None or said.agent == holder:
        return
    if state.task_status[task] != RUNNING:
        raise Refused("NOT_YOURS", f"The task {said.task!r} was ended by another agent.")
    if said.delivery == heard:
        raise Refused("NOT_YOURS", f"The task {said.task!r} is held by {holder!r}.")


def _ended_it(state: Execution, task: int, said: Answer) -> bool:
    """Whether the attempt before ended with these very words."""
    return isinstance(said, RequestInput if task in state.asked else FailTask)


def _late(said: Answer, current: int) -> Refused:
    detail = f"The task {said.task!r} is in attempt {current}, the answer is for {said.attempt}."
    return Refused("LATE_ANSWER", detail)
