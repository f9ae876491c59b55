"""A checked definition as plain fast types, and its canonical bytes.

The canonical bytes are a definition again, in the plan's spelling: keys sorted, defaults left out,
and the commonest retry policy said once, at the top. The engine stores them and their digest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

TIMEOUT_SECONDS = 300.0
MAX_PARALLEL_TASKS = 1000
QUEUE_TIMEOUT_SECONDS = 86_400.0  # a role without agents over a night and a day; then it is amiss
PATTERN = "graph"  # tasks and their dependencies, nothing else
VERSION = "1"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a failed task is tried again; `jitter` is the share left to chance."""

    max_attempts: int = 3
    initial_backoff_seconds: float = 1.0
    backoff_multiplier: float = 2.0
    max_backoff_seconds: float = 60.0
    jitter: float = 0.5
    non_retryable_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Coordination:
    """What holds for all tasks of a workflow.

    `allocation` says who gets a task: by default whoever of the role is free and asks for one. A
    task that nobody takes within `queue_timeout_seconds` fails the execution. `compensation` says
    whether an execution that ends early is undone by itself, or task by task when a person says so.
    """

    default_parallel: bool = True
    max_parallel_tasks: int = MAX_PARALLEL_TASKS
    allocation: str = "pull"
    queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS
    compensation: str = "automatic"


@dataclass(slots=True)
class AgentRequirement:
    """What a role asks of its agents; `max_concurrency` None leaves it to their own capacity.

    `cpu` (processors) and `memory` (MiB) are what one of its tasks takes.
    """

    capabilities: tuple[str, ...] = ()
    max_concurrency: int | None = None
    type: str | None = None
    count: int = 1
    cpu: float = 0.0
    memory: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)


DEFAULT_POLICY = RetryPolicy()
DEFAULT_COORDINATION = Coordination()


@dataclass(slots=True)
class TaskDefinition:
    """One task; `depends_on` holds each dependency once, `parallel` None means the default.

    `compensation_action` undoes the task: an action of its own role, or "role/action" of another.
    `wait_for` names a signal that the task waits for as for one more dependency.
    """

    task_id: str
    agent_role: str
    depends_on: tuple[str, ...] = ()
    parallel: bool | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    retry_policy: RetryPolicy = DEFAULT_POLICY
    compensation_action: str | None = None
    input: Any = None
    priority: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    wait_for: str | None = None

    @property
    def undoing(self) -> tuple[str, str] | None:
        """Who undoes the task, and by which action; None where nothing does."""
        if self.compensation_action is None:
            return None
        role, other, action = self.compensation_action.partition("/")
        return (role, action) if other else (self.agent_role, role)

    @property
    def duration_seconds(self) -> float:
        """How long the task is expected to take; 0 where nobody said."""
        return float(self.metadata.get("duration", 0.0))


@dataclass(slots=True)
class Definition:
    """A workflow that was checked; not changed any more once it exists."""

    name: str
    version: str
    orchestration_pattern: str
    agents: dict[str, AgentRequirement]
    tasks: tuple[TaskDefinition, ...]
    coordination: Coordination = DEFAULT_COORDINATION
    metadata: dict[str, Any] = field(default_factory=dict)
    workflow_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    _digest: str = field(default="", repr=False, compare=False)

    @property
    def max_parallel_tasks(self) -> int:
        """How many tasks of one execution run at once."""
        return self.coordination.max_parallel_tasks

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hexadecimal."""
        if not self._digest:
            self._digest = sha256(self.to_bytes()).hexdigest()
        return self._digest

    def to_bytes(self) -> bytes:
        """The canonical bytes; `from_bytes` reads them, and so does `parse_definition`."""
        policies = Counter(task.retry_policy for task in self.tasks)
        common = policies.most_common(1)[0][0] if policies else DEFAULT_POLICY
        written = {policy: _differing(policy, DEFAULT_POLICY) for policy in policies}
        document = {
            "name": self.name,
            "version": self.version,
            "orchestration_pattern": self.orchestration_pattern,
            "agents": {role: _differing(need, _ANYONE) for role, need in self.agents.items()},
            "tasks": [_task(task, common, written) for task in self.tasks],
            "coordination": _differing(self.coordination, DEFAULT_COORDINATION),
            "retry_policy": _differing(common, DEFAULT_POLICY),
            "metadata": self.metadata,
            "workflow_id": self.workflow_id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        document = {k: v for k, v in document.items() if v or k in ("agents", "tasks")}
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, canonical: bytes) -> Definition:
        """The definition that `to_bytes` wrote; nothing is checked again."""
        document: dict[str, Any] = orjson.loads(canonical)
        common = _policy(document.pop("retry_policy", {}))
        document["tasks"] = tuple([_read_task(task, common) for task in document["tasks"]])
        document["agents"] = {
            role: AgentRequirement(**(need | {"capabilities": tuple(need.get("capabilities", ()))}))
            for role, need in document["agents"].items()
        }
        document["coordination"] = Coordination(**document.get("coordination", {}))
        return cls(**document)


_ANYONE = AgentRequirement()


def _differing(thing: Any, default: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from the default's."""
    pairs = ((name, getattr(thing, name)) for name in thing.__slots__)
    return {name: value for name, value in pairs if value != getattr(default, name)}


def _task(
    task: TaskDefinition, common: RetryPolicy, written: dict[RetryPolicy, dict[str, Any]]
) -> dict[str, Any]:
    """A task's fields without those that say nothing."""
    fields: dict[str, Any] = {"task_id": task.task_id, "agent_role": task.agent_role}
    if task.depends_on:
        fields["depends_on"] = task.depends_on
    if task.parallel is not None:
        fields["parallel"] = task.parallel
    if task.timeout_seconds != TIMEOUT_SECONDS:
        fields["timeout_seconds"] = task.timeout_seconds
    if task.retry_policy != common:
        fields["retry_policy"] = written[task.retry_policy]
    if task.compensation_action is not None:
        fields["compensation_action"] = task.compensation_action
    if task.input is not None:
        fields["input"] = task.input
    if task.priority:
        fields["priority"] = task.priority
    if task.metadata:
        fields["metadata"] = task.metadata
    if task.wait_for is not None:
        fields["wait_for"] = task.wait_for
    return fields


def _read_task(fields: dict[str, Any], common: RetryPolicy) -> TaskDefinition:
    take = fields.get
    policy = take("retry_policy")
    return TaskDefinition(
        fields["task_id"],
        fields["agent_role"],
        tuple(take("depends_on", ())),
        take("parallel"),
        take("timeout_seconds", TIMEOUT_SECONDS),
        common if policy is None else _policy(policy),
        take("compensation_action"),
        take("input"),
        take("priority", 0),
        take("metadata") or {},
        take("wait_for"),
    )


def policy_to_store(policy: RetryPolicy | None) -> dict[str, Any] | None:
    """A policy as JSON-able data: what differs from the default."""
    if policy is None:
        return None
    fields = _differing(policy, DEFAULT_POLICY)
    if errors := fields.get("non_retryable_errors"):
        fields["non_retryable_errors"] = list(errors)
    return fields


def stored_policy(fields: dict[str, Any] | None) -> RetryPolicy | None:
    """The policy that was written down as data, where there was one."""
    return None if fields is None else _policy(fields)


def _policy(fields: dict[str, Any]) -> RetryPolicy:
    errors = tuple(fields.get("non_retryable_errors", ()))
    return RetryPolicy(**(fields | {"non_retryable_errors": errors}))
