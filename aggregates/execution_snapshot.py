"""An execution's state as JSON-able data and back; what the plan says is not written down.

What is true of few executions is written only where it is, so that a snapshot from before it was
known loads as well.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aggregates.decider import Blueprint
from aggregates.definitions.model import policy_to_store, stored_policy
from aggregates.execution_input import heard
from aggregates.execution_state import COMPLETED, RUNNING, SCHEDULED, Execution
from aggregates.execution_undoing import Undo, Undoing
from aggregates.plan import Plan
from aggregates.room import Room, stored_room


def dump(state: Execution) -> dict[str, Any] | None:
    """The state as JSON-able data; None before the start."""
    if state.plan is None:
        return None
    always = {
        "workflow_id": state.workflow_id,
        "revision": state.revision,
        "digest": state.digest,
        "status": state.status,
        "limit": state.limit,
        "phase": state.phase,
        "task_status": state.task_status.hex(),
        "attempts": state.attempts.hex(),
        "agents": _named(state.agents),
        "outputs": _named(state.outputs),
    }
    seldom = {
        "input": state.input,
        "inputs": state.inputs or None,
        "timeout_seconds": state.timeout_seconds,
        "retry_policy": policy_to_store(state.policy),
        "room": _dump_room(state.room),
        "deliveries": _named(state.deliveries) or None,
        "uncounted": _named(state.uncounted) or None,
        "asked": sorted(state.asked) or None,
        "signals": sorted(state.signals) or None,
        "order": state.undoing.order or None,
        "undoing": _dump_undoing(state.undoing),
    }
    return always | {name: value for name, value in seldom.items() if value is not None}


def _dump_room(room: Room | None) -> dict[str, Any] | None:
    """Its limits; what is in flight is known from the tasks."""
    return None if room is None else {"max_cpu": room.max_cpu, "max_memory": room.max_memory}


def _named(by_task: dict[int, Any]) -> dict[str, Any]:
    return {str(task): value for task, value in by_task.items()}


def _numbered(by_task: dict[str, Any]) -> dict[int, Any]:
    return {int(task): value for task, value in by_task.items()}


def _dump_undoing(undoing: Undoing) -> dict[str, Any] | None:
    if not undoing.tasks:
        return None
    return {
        "outcome": undoing.outcome,
        "reason": undoing.reason,
        "task": undoing.task,
        "tasks": [[task, asdict(undo)] for task, undo in undoing.tasks.items()],
    }


def load(root: str, data: Any, found: Blueprint | None) -> Execution:
    """The state that `dump` described; what can be derived from the plan is derived."""
    state = Execution(root)
    if data is None or found is None:
        return state
    state.begin(found, data["limit"])
    plan = found.plan
    state.status, state.phase = data["status"], data["phase"]
    state.task_status = bytearray.fromhex(data["task_status"])
    state.attempts = bytearray.fromhex(data["attempts"])
    state.agents = _numbered(data["agents"])
    state.outputs = _numbered(data["outputs"])
    state.input, state.inputs = data.get("input"), data.get("inputs", {})
    state.timeout_seconds = data.get("timeout_seconds")
    state.policy = stored_policy(data.get("retry_policy"))
    state.room = stored_room(data.get("room"))
    state.deliveries = _numbered(data.get("deliveries", {}))
    state.uncounted = _numbered(data.get("uncounted", {}))
    state.asked = set(data.get("asked", ()))
    state.undoing = _load_undoing(data, state, plan)
    for name in data.get("signals", ()):
        heard(state, name)
    for task, status in enumerate(state.task_status):
        if status == COMPLETED:
            state.done += 1
            state.phase_open[plan.phase[task]] -= 1
            for successor in plan.successors[task]:
                state.waiting[successor] -= 1
        elif status in (SCHEDULED, RUNNING):
            state.in_flight += 1
            if state.room is not None:
                state.room.enter(state.role_of(task))
            state.alone = state.alone or plan.exclusive[task]
    state.ready.clear()
    if not (state.terminal or state.undoing.outcome):
        state.find_ready()
    return state


def _load_undoing(data: dict[str, Any], state: Execution, plan: Plan) -> Undoing:
    """Snapshots from before the order of completion was kept have the order of the phases."""
    order = data.get("order")
    if order is None:
        done = [task for task in plan.undoing if state.task_status[task] == COMPLETED]
        order = sorted(done, key=lambda task: plan.phase[task])
    undoing = Undoing(order)
    if said := data.get("undoing"):
        undoing.outcome, undoing.reason = said["outcome"], said["reason"]
        undoing.task = said["task"]
        undoing.tasks = {task: Undo(**undo) for task, undo in said["tasks"]}
    return undoing
