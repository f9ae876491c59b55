"""The shape of a definition as it is sent: fields, types and ranges, in both spellings.

pydantic checks it, strictly: 1 is not "1", and true is not a number. What comes out are the plain
types of `model`; `problems` turns pydantic's errors into refusals; what fields mean together is
checked in `rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from aggregates.definitions import model

TEXT_CHARS_MAX = 1000  # a label people read, not a place for data
CAPABILITIES_MAX = 100
NON_RETRYABLE_MAX = 100
SECONDS_MAX = 366 * 86_400.0  # a person may take long to approve; a year is an accident
ATTEMPTS_MAX = 20  # with 20, even a task that fails half the time fails once in a million
BACKOFF_SECONDS_MAX = 86_400.0
MULTIPLIER_MAX = 100.0
PRIORITY_MAX = 1000
CPU_MAX = 100_000.0  # processors, of one task
MEMORY_MAX = 1e9  # MiB, of one task
CONCURRENCY_MAX = 100_000  # ten times the agents the engine is built for
JITTER = 0.5  # what `jitter: true` means

Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
Backoff = Annotated[float, Field(ge=0, le=BACKOFF_SECONDS_MAX, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=CONCURRENCY_MAX)]
Allocation = Literal["pull", "least_loaded", "round_robin", "capability_score", "lowest_cost"]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class PolicyShape(_Shape):
    """How a task is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] = 3
    initial_backoff_seconds: Backoff = 1.0
    backoff_multiplier: Annotated[float, Field(ge=1, le=MULTIPLIER_MAX, allow_inf_nan=False)] = 2.0
    max_backoff_seconds: Backoff = 60.0
    jitter: bool | Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = True
    non_retryable_errors: Annotated[list[Text], Field(max_length=NON_RETRYABLE_MAX)] = []


class AgentShape(_Shape):
    """What a role asks of its agents."""

    capabilities: Annotated[list[Text], Field(max_length=CAPABILITIES_MAX)] | None = None
    max_concurrency: Count | None = None
    type: Text | None = None
    count: Count = 1
    cpu: Annotated[float, Field(ge=0, le=CPU_MAX, allow_inf_nan=False)] = 0.0
    memory: Annotated[float, Field(ge=0, le=MEMORY_MAX, allow_inf_nan=False)] = 0.0
    metadata: dict[str, Any] | None = None


class TaskShape(_Shape):
    """One task, as `task_id` and `agent_role` or as `id` and `agent`."""

    task_id: str = Field(validation_alias=AliasChoices("task_id", "id"))
    agent_role: str = Field(validation_alias=AliasChoices("agent_role", "agent"))
    depends_on: Annotated[list[str], Field(fail_fast=True)] | None = None
    parallel: bool | None = None
    timeout_seconds: Timeout = model.TIMEOUT_SECONDS
    retry_policy: PolicyShape | None = None
    compensation_action: Text | None = None
    input: Any = Field(default=None, validation_alias=AliasChoices("input", "payload"))
    priority: Annotated[int, Field(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] = 0
    duration: Seconds | None = None
    metadata: dict[str, Any] | None = None
    wait_for: str | None = None
    when: None = None  # these three wait for a later step; `problems` refuses them by name
    for_each: None = None
    workflow: None = None


class CoordinationShape(_Shape):
    """What holds for all tasks."""

    default_parallel: bool = True
    max_parallel_tasks: Count = model.MAX_PARALLEL_TASKS
    allocation: Allocation = "pull"
    queue_timeout_seconds: Timeout = model.QUEUE_TIMEOUT_SECONDS
    compensation: Literal["automatic", "manual"] = "automatic"


class DefinitionShape(_Shape):
    """The whole document; `recorded` is what a run of it once did, kept under metadata."""

    name: str
    version: str = model.VERSION
    orchestration_pattern: str = model.PATTERN
    agents: dict[str, AgentShape | None]
    tasks: list[Any]  # each a TaskShape, checked one by one: together they would keep the gc busy
    coordination: CoordinationShape | None = None
    retry_policy: PolicyShape | None = None
    metadata: dict[str, Any] | None = None
    recorded: Any = None
    workflow_id: str | None = None
    created_at: Text | None = None
    updated_at: Text | None = None


def to_model(shape: DefinitionShape, task_shapes: Iterable[TaskShape]) -> model.Definition:
    """The definition in plain types, with every default filled in."""
    metadata = dict(shape.metadata or {})
    if shape.recorded is not None:
        metadata["recorded"] = shape.recorded
    common = to_policy(shape.retry_policy)
    known: dict[model.RetryPolicy, model.RetryPolicy] = {}  # tasks share equal policies
    tasks = []
    for task in task_shapes:
        policy = to_policy(task.retry_policy, common)
        tasks.append(_task(task, known.setdefault(policy, policy)))
    coordination = shape.coordination or CoordinationShape()
    return model.Definition(
        name=shape.name,
        version=shape.version,
        orchestration_pattern=shape.orchestration_pattern,
        agents={role: _agent(need or AgentShape()) for role, need in shape.agents.items()},
        tasks=tuple(tasks),
        coordination=model.Coordination(
            coordination.default_parallel,
            coordination.max_parallel_tasks,
            coordination.allocation,
            coordination.queue_timeout_seconds,
            coordination.compensation,
        ),
        metadata=metadata,
        workflow_id=shape.workflow_id,
        created_at=shape.created_at,
        updated_at=shape.updated_at,
    )


def _task(task: TaskShape, policy: model.RetryPolicy) -> model.TaskDefinition:
    metadata = task.metadata or {}
    if task.duration is not None:
        metadata["duration"] = task.duration
    return model.TaskDefinition(
        task.task_id,
        task.agent_role,
        tuple(dict.fromkeys(task.depends_on)) if task.depends_on else (),
        task.parallel,
        task.timeout_seconds,
        policy,
        task.compensation_action,
        task.input,
        task.priority,
        metadata,
        task.wait_for,
    )


def to_policy(
    policy: PolicyShape | None, default: model.RetryPolicy = model.DEFAULT_POLICY
) -> model.RetryPolicy:
    """The policy in plain types; the default where none was given."""
    if policy is None:
        return default
    jitter = policy.jitter
    if isinstance(jitter, bool):
        jitter = JITTER if jitter else 0.0
    return model.RetryPolicy(
        policy.max_attempts,
        policy.initial_backoff_seconds,
        policy.backoff_multiplier,
        policy.max_backoff_seconds,
        jitter,
        tuple(policy.non_retryable_errors),
    )


def _agent(need: AgentShape) -> model.AgentRequirement:
    return model.AgentRequirement(
        tuple(need.capabilities or ()),
        need.max_concurrency,
        need.type,
        need.count,
        need.cpu,
        need.memory,
        need.metadata or {},
    )
