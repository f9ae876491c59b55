"""What is said to executions in tests, and what it comes to, in few words."""

from __future__ import annotations

from typing import Any

from aggregates.decider import Blueprint
from aggregates.execution_commands import (
    CompleteCompensation,
    CompleteTask,
    FailCompensation,
    FailTask,
    RequestInput,
    StartExecution,
    StartTask,
    TimeOutTask,
)
from aggregates.execution_events import TaskScheduled
from tests.flows import ROLE, flow
from tests.spec import Given, given

ANN, BOB = "ann", "bob"
NO_DELAY = {"initial_backoff_seconds": 0}


def start(found: Blueprint | None, **said: Any) -> StartExecution:
    command = StartExecution("w", **said)
    command._blueprint = found
    return command


def begin(task: str, attempt: int = 1, agent: str = ANN, delivery: int = 1) -> StartTask:
    return StartTask(task, attempt, agent, delivery)


def done(
    task: str, attempt: int = 1, agent: str = ANN, output: Any = None, delivery: int = 1
) -> CompleteTask:
    return CompleteTask(task, attempt, agent, output, delivery=delivery)


def fail(
    task: str,
    attempt: int = 1,
    agent: str = ANN,
    error: str = "no",
    retryable: bool = True,
    delivery: int = 1,
) -> FailTask:
    return FailTask(task, attempt, agent, error, retryable, delivery=delivery)


def ask(
    task: str, attempt: int = 1, agent: str = ANN, prompt: Any = "?", delivery: int = 1
) -> RequestInput:
    return RequestInput(task, attempt, agent, prompt, delivery=delivery)


def late(task: str, attempt: int = 1, kind: str = "run", reason: str = "No answer.") -> TimeOutTask:
    return TimeOutTask(task, attempt, kind, reason)


def undone(task: str, attempt: int = 1, agent: str = ANN) -> CompleteCompensation:
    return CompleteCompensation(task, attempt, agent)


def not_undone(
    task: str, attempt: int = 1, agent: str = ANN, error: str = "no", retryable: bool = True
) -> FailCompensation:
    return FailCompensation(task, attempt, agent, error, retryable)


def scheduled(task: str, attempt: int = 1, phase: int = 1, **more: Any) -> TaskScheduled:
    return TaskScheduled(task, attempt, ROLE, phase, **more)


def of_kind(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


CHAIN = flow(a=[], b=["a"])
ONE = flow(a=[], policy=NO_DELAY)


def run(found: Blueprint, **said: Any) -> Given:
    """Complete whatever is scheduled, oldest first, until nothing is."""
    so_far = given().when(start(found, **said)).so()
    answered = 0
    while len(open_ := of_kind(so_far.happened, TaskScheduled)) > answered:
        task = open_[answered].task
        so_far = so_far.when(done(task, output=f"out of {task}")).so()
        answered += 1
    return so_far
