"""Whose answer counts: what an agent says about a task is checked against who holds which attempt.

An answer that was accepted before changes nothing; one that comes too late or for a task that is
not there is refused, and the refusal recorded. The attempt decides, not the agent: an attempt whose
agent died is delivered to another one, which takes it over by what it says, and the first answer
counts.
"""

from __future__ import annotations

from typing import Any

from aggregates.execution_commands import CompleteTask, FailTask, StartTask
from aggregates.execution_events import TaskStarted, TaskTakenOver
from aggregates.execution_state import COMPLETED, FAILED, PENDING, RUNNING, SCHEDULED, Execution
from aggregates.problem import Refused

AGENT_BYTES_MAX = 200  # as every id: it is an index key in read models

Answer = StartTask | CompleteTask | FailTask


def accept(state: Execution, said: Answer) -> int | None:
    """The task that an answer is about; None where the same answer was accepted before."""
    assert state.plan is not None
    task = state.plan.index.get(said.task)
    if task is None:
        raise Refused("UNKNOWN_TASK", f"The execution {state.id} has no task {said.task!r}.")
    _check_agent(said.agent)
    status, current, holder = state.task_status[task], state.attempts[task], state.agents.get(task)
    if status in (PENDING, SCHEDULED):
        before = current if status == PENDING else current - 1
        if isinstance(said, FailTask) and (said.attempt, said.agent) == (before, holder):
            return None  # that attempt has failed; the next one waits or is under way
        holder = None
    if said.attempt != current or status == PENDING:
        raise Refused(
            "LATE_ANSWER",
            f"The task {said.task!r} is in attempt {current}, the answer is for {said.attempt}.",
        )
    if status in (SCHEDULED, RUNNING):
        return task
    if holder is not None and holder != said.agent:
        raise Refused("NOT_YOURS", f"The task {said.task!r} was ended by another agent.")
    expected = FAILED if isinstance(said, FailTask) else COMPLETED
    if status == expected or (isinstance(said, StartTask) and holder is not None):
        return None
    raise Refused("LATE_ANSWER", f"The task {said.task!r} has ended otherwise.")


def unsaid_start(state: Execution, task: int, said: Answer) -> list[Any]:
    """That the task has begun with this agent, where that was not known yet."""
    started_at = None if isinstance(said, StartTask) else said.started_at
    if state.task_status[task] != RUNNING:
        return [TaskStarted(said.task, said.attempt, said.agent, started_at)]
    if state.agents.get(task) != said.agent:
        return [TaskTakenOver(said.task, said.attempt, said.agent, started_at)]
    return []


def _check_agent(name: str) -> None:
    if not name or len(name.encode()) > AGENT_BYTES_MAX:
        raise Refused(
            "INVALID_VALUE", f"`agent` is a text of 1 to {AGENT_BYTES_MAX} bytes.", "/agent"
        )
