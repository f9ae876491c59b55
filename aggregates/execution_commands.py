"""What can be said to an execution."""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregates.decider import Blueprint
from aggregates.sealed import Answer, Error, Input, Inputs, Output, Policy, Prompt, Signal, Undone


@dataclass(slots=True)
class StartExecution:
    """Run one revision of a workflow (0: the newest), for at most `timeout_seconds` in all.

    `retry_policy` takes the place of its tasks' own ones, except for their compensations. Its tasks
    in flight take `max_cpu` processors and `max_memory` MiB at most, by what their roles say.
    """

    workflow_id: str
    revision: int = 0
    input: Input = None
    max_parallel_tasks: int | None = None
    timeout_seconds: float | None = None
    retry_policy: Policy = None
    max_cpu: float | None = None
    max_memory: float | None = None
    _blueprint: Blueprint | None = field(default=None, init=False)


@dataclass(slots=True)
class StartTask:
    """An agent says that it has begun an attempt; may be left out before Complete or Fail."""

    task: str
    attempt: int
    agent: str
    delivery: int = 1


@dataclass(slots=True)
class CompleteTask:
    """An agent delivers the output of an attempt."""

    task: str
    attempt: int
    agent: str
    output: Output = None
    started_at: str | None = None
    delivery: int = 1


@dataclass(slots=True)
class FailTask:
    """An agent could not do an attempt; `retryable` false ends the task at once."""

    task: str
    attempt: int
    agent: str
    error: Error
    retryable: bool = True
    started_at: str | None = None
    delivery: int = 1


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


@dataclass(slots=True)
class TimeOutTask:
    """An attempt took too long: `kind` is "run" (an agent holds it) or "queue" (nobody took it)."""

    task: str
    attempt: int
    kind: str
    reason: str = ""


@dataclass(slots=True)
class RequestInput:
    """An agent needs an answer from outside before it can go on; the task waits for it."""

    task: str
    attempt: int
    agent: str
    prompt: Prompt = None
    started_at: str | None = None
    delivery: int = 1


@dataclass(slots=True)
class ProvideInput:
    """The answer that a waiting task asked for; the task is given out again with it."""

    task: str
    input: Answer = None


@dataclass(slots=True)
class SignalExecution:
    """Something happened outside, an approval perhaps; tasks that wait for `name` may start."""

    name: str
    data: Signal = None


@dataclass(slots=True)
class RetryExecution:
    """Go on with a failed execution from `task` (None: all that failed); `inputs` by task id."""

    task: str | None = None
    inputs: Inputs = field(default_factory=dict)
    reason: str = ""


@dataclass(slots=True)
class TimeOutExecution:
    """The execution's own time is over."""

    reason: str = ""


@dataclass(slots=True)
class CheckExecution:
    """Nothing was heard of the execution for long: fail it if nothing can ever happen to it."""


@dataclass(slots=True)
class CompensateTask:
    """The saga says: undo this task now."""

    task: str


@dataclass(slots=True)
class CompleteCompensation:
    """An agent has undone a task."""

    task: str
    attempt: int
    agent: str
    output: Undone = None
    started_at: str | None = None
    delivery: int = 1


@dataclass(slots=True)
class FailCompensation:
    """An agent could not undo a task."""

    task: str
    attempt: int
    agent: str
    error: Error
    retryable: bool = True
    started_at: str | None = None
    delivery: int = 1


@dataclass(slots=True)
class TimeOutCompensation:
    """Undoing a task took too long."""

    task: str
    attempt: int
    reason: str = ""


@dataclass(slots=True)
class EndCompensation:
    """The saga says: everything was undone or parked; the execution ends."""


@dataclass(slots=True)
class RetryCompensation:
    """A person has the undoing of a parked task tried again, also after the execution's end."""

    task: str
    reason: str = ""


COMMANDS = (
    StartExecution,
    StartTask,
    CompleteTask,
    FailTask,
    PauseExecution,
    ResumeExecution,
    CancelExecution,
    TimeOutTask,
    RequestInput,
    ProvideInput,
    SignalExecution,
    RetryExecution,
    TimeOutExecution,
    CheckExecution,
    CompensateTask,
    CompleteCompensation,
    FailCompensation,
    TimeOutCompensation,
    EndCompensation,
    RetryCompensation,
)
