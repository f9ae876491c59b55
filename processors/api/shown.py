"""What answers look like, for the OpenAPI document; rows are written as they are, and the tests
hold them against these models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Shown(BaseModel):
    """An answer; fields may be added, so a client ignores those that it does not know."""

    model_config = ConfigDict(extra="allow")


class Page(Shown, Generic[T]):
    """Some of a list; `next` is the cursor of the rest, null at the end."""

    items: list[T]
    next: str | None


class Outcome(Shown):
    """What became of a command; `changed` is false where all of it was true before."""

    command_id: str
    status: Literal["accepted", "pending"]
    position: str | None = None
    changed: bool | None = None


class WorkflowOutcome(Outcome):
    """What became of a command to a workflow."""

    workflow_id: str


class ExecutionOutcome(Outcome):
    """What became of a command to an execution."""

    execution_id: str
    workflow_id: str | None = None


class AgentOutcome(Outcome):
    """What became of a command to an agent."""

    agent_id: str


class Tenant(Shown):
    """A tenant: whose it is what is sealed with its key, and how often that has sealed, about."""

    tenant: str
    name: str
    status: str
    key_version: int | None
    seals: int | None
    key_since: datetime | None
    erased_by: str | None
    erased_why: str | None
    erased_at: datetime | None


class TenantOutcome(Outcome):
    """What became of a decision on a tenant."""

    tenant: str
    key_version: int | None = None


class LetterOutcome(Outcome):
    """What became of a decision about a dead letter."""

    dead_letter_id: str


class KnownOutcome(Outcome):
    """What the log says of a command; `problem` is why it was rejected."""

    status: Literal["accepted", "rejected"]  # type: ignore[assignment]
    problem: dict[str, Any] | None = None


class Workflow(Shown):
    """A workflow as of its newest revision."""

    workflow_id: str
    name: str
    version: str
    revision: int
    digest: str
    pattern: str
    roles: list[str]
    tasks: int
    edges: int
    phases: int
    critical_path_seconds: float
    status: Literal["active", "archived"]
    created_at: datetime
    updated_at: datetime


class CriticalPath(Shown):
    """The longest chain of tasks."""

    seconds: float
    tasks: int
    ids: list[str]


class Plan(Shown):
    """What a definition comes to."""

    name: str
    version: str
    pattern: str
    digest: str
    roles: list[str]
    tasks: int
    edges: int
    phases: int
    widest_phase: int
    critical_path: CriticalPath


class TaskCounts(Shown):
    """How many tasks are in which status; the rest are pending."""

    total: int
    scheduled: int
    running: int
    waiting: int
    completed: int
    failed: int
    cancelled: int
    compensated: int


class Execution(Shown):
    """One run of a workflow."""

    execution_id: str
    workflow_id: str
    workflow_name: str
    revision: int
    status: Literal["planning", "executing", "paused", "completed", "failed", "cancelled"]
    current_phase: str
    phases: int
    tasks: TaskCounts
    attempts_failed: int
    timeout_seconds: float | None
    reason: str | None
    started_at: datetime
    completed_at: datetime | None
    updated_at: datetime


class WholeExecution(Execution):
    """One run of a workflow, with what went in and came out."""

    input: Any
    output: Any


class AgentAtWork(Shown):
    """An agent that works or has worked for an execution; `progress` is the share of its tasks
    that have ended.
    """

    agent_id: str
    status: Literal["assigned", "running", "completed"]
    current_task: str | None
    progress: float


class Performance(Shown):
    """What an execution cost; `coordination_overhead` is the share of its time without any task
    running, null where no time has passed; `total_runtime` is in seconds.
    """

    total_runtime: float
    agents_allocated: int
    tasks_completed: int
    coordination_overhead: float | None


class ExecutionStatus(Shown):
    """How an execution stands."""

    workflow_id: str
    execution_id: str
    status: Literal["planning", "executing", "paused", "completed", "failed", "cancelled"]
    current_phase: str
    agents: list[AgentAtWork]
    agents_left_out: int
    performance_metrics: Performance


class Task(Shown):
    """A task of an execution, from the moment it was scheduled."""

    task_id: str
    agent_role: str
    status: str
    attempt: int
    agent_id: str | None
    phase: int
    priority: int
    scheduled_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error: str | None
    output: Any
    prompt: Any
    compensation: str | None


class EventShown(Shown):
    """A CloudEvents envelope, as it was stored."""

    specversion: str
    id: str
    type: str
    subject: str
    time: datetime
    partition: int
    position: int
    version: int
    data: dict[str, Any]


class StateShown(Shown):
    """An execution's state, folded from its events up to a moment."""

    execution_id: str
    workflow_id: str
    status: str
    phase: int
    phases: int
    partition: int
    position: int
    version: int
    time: datetime
    events: int
    counts: dict[str, int]
    tasks: list[dict[str, Any]]


class Finding(Shown):
    """One reason why an execution is where it is, and what would help."""

    text: str
    blocks: bool
    cure: str | None


class Explanation(Shown):
    """Facts about an execution, and what follows from them."""

    execution_id: str
    status: str
    findings: list[Finding]


class Agent(Shown):
    """A registered agent."""

    agent_id: str
    name: str
    roles: list[str]
    capabilities: list[str]
    capacity: int
    cost: float
    region: str | None
    status: str
    circuit: str
    lost: bool
    reason: str
    registered_at: datetime
    updated_at: datetime


class Letter(Shown):
    """What could not be handled."""

    dead_letter_id: str
    kind: Literal["command", "event", "task", "hook"]
    subject: str | None
    source: str
    entry: str
    reason: str
    raw_bytes: int
    time: datetime
    status: Literal["open", "retried", "discarded"]
    tries: int
    decided_by: str | None
    decided_why: str | None
    decided_at: datetime | None


class AuditEntry(Shown):
    """Something that was commanded; `problem` says why it was refused."""

    time: datetime
    actor: str | None
    origin: str | None
    subject: str
    type: str
    allowed: bool
    version: int
    partition: int
    position: int
    causation_id: str | None
    correlation_id: str | None
    problem: dict[str, Any] | None


class AuditRead(Shown):
    """A look at sealed payloads, or at a tenant's keys; or one that was refused."""

    number: int
    time: datetime
    actor: str
    origin: str
    action: str
    subject: str
    via: str
    payloads: int
    allowed: bool
    detail: str


class WholeLetter(Letter):
    """What could not be handled, with its bytes in base64."""

    raw: str
    raw_kept: int


class PartitionLag(Shown):
    """How far a read model has come in one partition, in events."""

    partition: int
    head: int
    position: int
    lag: int


class ReadModel(Shown):
    """A read model and how far behind it is."""

    name: str
    version: int
    tables: list[str]
    lag: int
    partitions: list[PartitionLag]


class ReadModels(Shown):
    """All read models."""

    items: list[ReadModel]


class Live(Shown):
    """The process lives."""

    status: Literal["live"]


class Ready(Shown):
    """Whether the gateway can work, and which server it misses."""

    status: Literal["ready", "not ready"]
    postgres: bool
    redis: bool


class ProblemShown(Shown):
    """An RFC 9457 problem; `code` is for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    pointer: str | None = None
