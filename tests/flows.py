"""Workflows for tests, in one line each: `flow(draft=[], review=["draft"])`."""

from __future__ import annotations

from typing import Any

from aggregates.decider import Blueprint
from aggregates.definition import Definition, validate
from aggregates.plan import plan

ROLE = "worker"


def definition(
    tasks: dict[str, list[str] | dict[str, Any]],
    *,
    name: str = "flow",
    policy: dict[str, Any] | None = None,
    **coordination: Any,
) -> Definition:
    """The checked definition of tasks given by what they depend on, or by their fields."""
    return validate(document(tasks, name=name, policy=policy, **coordination))


def document(
    tasks: dict[str, list[str] | dict[str, Any]],
    *,
    name: str = "flow",
    policy: dict[str, Any] | None = None,
    **coordination: Any,
) -> dict[str, Any]:
    """The same as a document that a client may send."""
    items = []
    for task_id, said in tasks.items():
        fields = said if isinstance(said, dict) else {"depends_on": said}
        items.append({"task_id": task_id, "agent_role": ROLE, **fields})
    return {
        "name": name,
        "agents": {ROLE: {}},
        "tasks": items,
        "coordination": coordination,
        "retry_policy": policy,
    }


def blueprint(made: Definition, *, archived: bool = False, tenant: str = "default") -> Blueprint:
    """The definition as revision 1 of the workflow `w`."""
    return Blueprint("w", 1, made.digest, tenant, archived, plan(made))


def flow(
    tasks: dict[str, list[str] | dict[str, Any]] | None = None,
    *,
    policy: dict[str, Any] | None = None,
    limit: int = 1000,
    all_alone: bool = False,
    compensation: str = "automatic",
    **more: list[str] | dict[str, Any],
) -> Blueprint:
    """A workflow to run: tasks by keyword, at most `limit` at once, each alone with `all_alone`."""
    made = definition(
        {**(tasks or {}), **more},
        policy=policy,
        max_parallel_tasks=limit,
        default_parallel=not all_alone,
        compensation=compensation,
    )
    return blueprint(made)
