"""What can happen to an execution.

Names and fields are what is stored; change them only with an upcaster. Without slots, which orjson
writes four times slower; an event lives for one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregates.decider import Blueprint
from aggregates.sealed import (
    Answer,
    Error,
    Input,
    Inputs,
    Output,
    Outputs,
    Policy,
    Prompt,
    Reason,
    Signal,
    Undone,
)


@dataclass
class ExecutionStarted:
    workflow_id: str
    revision: int
    digest: str
    name: str
    tasks: int
    phases: int
    max_parallel_tasks: int
    input: Input = None
    timeout_seconds: float | None = None
    retry_policy: Policy = None
    max_cpu: float | None = None
    max_memory: float | None = None
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


@dataclass(init=False)
class TaskStarted:
    """`delivery` is stored only where it is not 1: this is the log's commonest event but two."""

    task: str
    attempt: int
    agent: str
    started_at: str | None = None
    delivery: int = 1

    def __init__(
        self, task: str, attempt: int, agent: str, started_at: str | None = None, delivery: int = 1
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.agent = agent
        self.started_at = started_at
        if delivery != 1:
            self.delivery = delivery


@dataclass
class TaskTakenOver:
    """A later delivery was begun, by another agent than `previous` or by the same one again."""

    task: str
    attempt: int
    agent: str
    started_at: str | None = None
    delivery: int = 1
    previous: str | None = None


@dataclass
class TaskCompleted:
    task: str
    attempt: int
    agent: str
    output: Output = None


@dataclass
class TaskFailed:
    task: str
    attempt: int
    agent: str
    error: Error
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
    output: Outputs = None


@dataclass
class ExecutionFailed:
    """`compensated` and `not_compensated` name tasks; None where there was nothing to undo."""

    reason: Reason
    task: str | None = None
    compensated: list[str] | None = None
    not_compensated: list[str] | None = None


@dataclass
class ExecutionCancelled:
    reason: Reason
    compensated: list[str] | None = None
    not_compensated: list[str] | None = None


@dataclass
class TaskTimedOut:
    task: str
    attempt: int
    agent: str | None
    kind: str
    reason: str
    retried: bool


@dataclass
class InputRequested:
    """The attempt is over; the next one begins with the answer."""

    task: str
    attempt: int
    agent: str
    prompt: Prompt = None


@dataclass
class InputProvided:
    """`attempt` is the one that had asked."""

    task: str
    attempt: int
    input: Answer = None


@dataclass
class SignalReceived:
    name: str
    data: Signal = None


@dataclass
class ExecutionRetried:
    """`tasks` are open again; `inputs` replace theirs; who folds from here has all it needs."""

    workflow_id: str
    revision: int
    digest: str
    tasks: list[str]
    reason: str
    input: Input = None
    inputs: Inputs = field(default_factory=dict)
    timeout_seconds: float | None = None
    retry_policy: Policy = None
    _blueprint: Blueprint | None = field(default=None, repr=False, compare=False)


@dataclass
class CompensationStarted:
    """`tasks` are undone in this order; `outcome` is how the execution ends then."""

    outcome: str
    reason: Reason
    task: str | None
    tasks: list[str]


@dataclass
class CompensationScheduled:
    task: str
    attempt: int
    role: str
    action: str
    delay_ms: int = 0


@dataclass
class TaskCompensated:
    task: str
    attempt: int
    agent: str
    output: Undone = None


@dataclass
class CompensationFailed:
    task: str
    attempt: int
    agent: str | None
    error: Error
    retried: bool


@dataclass
class CompensationParked:
    task: str
    attempts: int
    error: Error


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
    TaskTimedOut,
    InputRequested,
    InputProvided,
    SignalReceived,
    ExecutionRetried,
    CompensationStarted,
    CompensationScheduled,
    TaskCompensated,
    CompensationFailed,
    CompensationParked,
)
