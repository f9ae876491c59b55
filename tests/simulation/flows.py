"""Small random workflows of every kind that the engine runs, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

ROLES = ("alpha", "beta")
SIGNALS = ("approved", "delivered")


def workflow(chance: random.Random) -> dict[str, Any]:
    """A definition of one to seven tasks."""
    names = [f"t{n}" for n in range(chance.randint(1, 7))]
    tasks = []
    for n, name in enumerate(names):
        task: dict[str, Any] = {
            "task_id": name,
            "agent_role": chance.choice(ROLES),
            "depends_on": [before for before in names[:n] if chance.random() < 0.4],
            "priority": chance.randint(-2, 2),
            "timeout_seconds": 20.0,
        }
        if chance.random() < 0.3:
            task["compensation_action"] = chance.choice(("undo", "beta/undo"))
        if chance.random() < 0.08:
            task["wait_for"] = chance.choice(SIGNALS)
        if chance.random() < 0.1:
            task["parallel"] = False
        tasks.append(task)
    return {
        "name": "flow",
        "agents": {role: {} for role in ROLES},
        "tasks": tasks,
        "coordination": {"max_parallel_tasks": chance.randint(1, 4)},
        "retry_policy": {
            "max_attempts": chance.randint(1, 5),
            "initial_backoff_seconds": 0.1,
            "max_backoff_seconds": 1.0,
        },
    }
