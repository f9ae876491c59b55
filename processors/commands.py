"""The commands that people and programs give, ready to be published; ids are UUIDv7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from uuid_utils import uuid7

from streams.message import Command


def new_id() -> str:
    """A fresh id that sorts by time, so that an index on it grows at its right edge."""
    return str(uuid7())


def command(
    aggregate: str,
    root: str | None,
    type_: str,
    data: dict[str, Any],
    command_id: str | None = None,
) -> Command:
    """Any command; what is None in its data is left out."""
    given = {name: value for name, value in data.items() if value is not None}
    return Command(command_id or new_id(), type_, aggregate, root or new_id(), given)


def create_workflow(
    *,
    definition: dict[str, Any] | None = None,
    source: str | None = None,
    format: Literal["json", "yaml"] = "json",  # noqa: A002 - the field's name
    workflow_id: str | None = None,
) -> Command:
    """Write a workflow's first revision, from an object or from text."""
    return command(
        "workflow", workflow_id, "CreateWorkflow", _definition(definition, source, format)
    )


def revise_workflow(
    workflow_id: str,
    *,
    definition: dict[str, Any] | None = None,
    source: str | None = None,
    format: Literal["json", "yaml"] = "json",  # noqa: A002 - the field's name
) -> Command:
    """Write a further revision of a workflow."""
    return command(
        "workflow", workflow_id, "ReviseWorkflow", _definition(definition, source, format)
    )


def archive_workflow(workflow_id: str, reason: str = "") -> Command:
    """Start no more executions of a workflow."""
    return command("workflow", workflow_id, "ArchiveWorkflow", {"reason": reason})


def start_execution(
    workflow_id: str,
    *,
    revision: int = 0,
    input: Any = None,  # noqa: A002 - the field's name
    max_parallel_tasks: int | None = None,
    timeout_seconds: float | None = None,
    retry_policy: dict[str, Any] | None = None,
    max_cpu: float | None = None,
    max_memory: float | None = None,
    execution_id: str | None = None,
) -> Command:
    """Run one revision of a workflow; 0 is the newest. After `timeout_seconds` it fails.

    `retry_policy` has the fields of a definition's, and holds in place of its tasks' own ones.
    """
    data = {
        "workflow_id": workflow_id,
        "revision": revision,
        "input": input,
        "max_parallel_tasks": max_parallel_tasks,
        "timeout_seconds": timeout_seconds,
        "retry_policy": retry_policy,
        "max_cpu": max_cpu,
        "max_memory": max_memory,
    }
    return command("execution", execution_id, "StartExecution", data)


def pause_execution(execution_id: str, reason: str = "") -> Command:
    """Schedule nothing new in an execution."""
    return command("execution", execution_id, "PauseExecution", {"reason": reason})


def resume_execution(execution_id: str, reason: str = "") -> Command:
    """Go on with a paused execution."""
    return command("execution", execution_id, "ResumeExecution", {"reason": reason})


def cancel_execution(execution_id: str, reason: str = "") -> Command:
    """End an execution."""
    return command("execution", execution_id, "CancelExecution", {"reason": reason})


def signal_execution(execution_id: str, name: str, data: Any = None) -> Command:
    """Say that something has happened; the tasks that wait for it may start."""
    return command("execution", execution_id, "SignalExecution", {"name": name, "data": data})


def provide_input(execution_id: str, task: str, answer: Any) -> Command:
    """Answer a task that has asked for input."""
    return command("execution", execution_id, "ProvideInput", {"task": task, "input": answer})


def retry_execution(
    execution_id: str,
    *,
    task: str | None = None,
    inputs: dict[str, Any] | None = None,
    reason: str = "",
) -> Command:
    """Go on with a failed execution; `inputs` by task id replace those of its definition."""
    data = {"task": task, "inputs": inputs or {}, "reason": reason}
    return command("execution", execution_id, "RetryExecution", data)


def retry_compensation(execution_id: str, task: str, reason: str = "") -> Command:
    """Try again to undo a task whose compensation was parked."""
    data = {"task": task, "reason": reason}
    return command("execution", execution_id, "RetryCompensation", data)


def register_agent(
    agent_id: str,
    *,
    name: str,
    roles: Sequence[str],
    capabilities: Sequence[str] = (),
    capacity: int = 1,
    card: dict[str, Any] | None = None,
    cost: float | None = None,
    region: str | None = None,
) -> Command:
    """Make an agent known, or change what is known of it."""
    data = {
        "name": name,
        "roles": list(roles),
        "capabilities": list(capabilities),
        "capacity": capacity,
        "card": card,
        "cost": cost,
        "region": region,
    }
    return command("agent", agent_id, "RegisterAgent", data)


def drain_agent(agent_id: str, reason: str = "") -> Command:
    """Give an agent nothing new."""
    return command("agent", agent_id, "DrainAgent", {"reason": reason})


def deregister_agent(agent_id: str, reason: str = "") -> Command:
    """Forget an agent."""
    return command("agent", agent_id, "DeregisterAgent", {"reason": reason})


def _definition(
    definition: dict[str, Any] | None, source: str | None, format_: str
) -> dict[str, Any]:
    assert (definition is None) != (source is None), "a workflow comes as an object or as text"
    if definition is not None:
        return {"definition": definition}
    return {"source": source, "format": format_}
