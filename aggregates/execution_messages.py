"""What can be said to an execution, and what can happen to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aggregates.decider import Blueprint


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
# Without slots, which orjson writes four times slower; an event lives for one batch.


@dataclass
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


@dataclass
class PhaseEntered:
    phase: int
    of: int


@dataclass
class TaskScheduled:
    task: str
    attempt: int
    role: str
    phase: int
    priority: int = 0
    delay_ms: int = 0


@dataclass
class TaskStarted:
    task: str
    attempt: int
    agent: str
    started_at: str | None = None


@dataclass
class TaskTakenOver:
    task: str
    attempt: int
    agent: str
    started_at: str | None = None


@dataclass
class TaskCompleted:
    task: str
    attempt: int
    agent: str
    output: Any = None


@dataclass
class TaskFailed:
    task: str
    attempt: int
    agent: str
    error: str
    retried: bool


@dataclass
class TaskCancelled:
    task: str
    attempt: int


@dataclass
class ExecutionPaused:
    reason: str


@dataclass
class ExecutionResumed:
    reason: str


@dataclass
class ExecutionCompleted:
    tasks: int
    output: dict[str, Any] | None = None


@dataclass
class ExecutionFailed:
    reason: str
    task: str | None = None


@dataclass
class ExecutionCancelled:
    reason: str


COMMANDS = (
    StartExecution,
    StartTask,
    CompleteTask,
    FailTask,
    PauseExecution,
    ResumeExecution,
    CancelExecution,
)
EVENTS = (
    ExecutionStarted,
    PhaseEntered,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
    TaskCompleted,
    TaskFailed,
    TaskCancelled,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionCancelled,
)
