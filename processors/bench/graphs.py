"""Workflow documents made for measurements; the same sizes always give the same document."""

from __future__ import annotations

from random import Random
from typing import Any

LAYER_NODES = 50  # of a layered graph: 1,000 nodes have 20 phases, 100,000 have 2,000
REACH = 3 * LAYER_NODES  # a task depends on earlier tasks of the last three layers
EDGES_A_NODE = (2, 3)
PHASES = (0.229, 0.229, 0.02, 0.251, 0.251, 0.02)  # of LIGO's inspiral workflow, as shares
ROLE = "worker"


def layered(nodes: int, seed: int = 1) -> dict[str, Any]:
    """A random graph in layers, with two or three dependencies a task behind the first layer."""
    draw = Random(seed)  # noqa: S311 - a graph, not a secret
    tasks = []
    for node in range(nodes):
        layer = node - node % LAYER_NODES
        before = range(max(0, layer - REACH), layer)
        chosen = draw.sample(before, draw.choice(EDGES_A_NODE)) if before else []
        tasks.append(_task(node, [f"t{other}" for other in sorted(chosen)]))
    return _document(f"layered-{nodes}", tasks)


def fan_out(tasks: int, at_once: int, role: str = ROLE) -> dict[str, Any]:
    """Tasks that wait for nothing, of which so many are in flight at once."""
    made = [_task(node, [], role) for node in range(tasks)]
    return _document(f"fan-out-{tasks}", made, at_once, role)


def chain(tasks: int, role: str) -> dict[str, Any]:
    """Tasks one after another."""
    made = [_task(node, [f"t{node - 1}"] if node else [], role) for node in range(tasks)]
    return _document(f"chain-{tasks}", made, role=role)


def long_fan(tasks: int, role: str, seconds: float) -> dict[str, Any]:
    """So many tasks at once, each of which takes its time."""
    made = [_task(node, [], role) | {"metadata": {"seconds": seconds}} for node in range(tasks)]
    return _document(f"long-fan-{tasks}", made, tasks, role)


def fan_and_join(tasks: int, role: str) -> dict[str, Any]:
    """So many tasks at once, and one more that waits for all of them."""
    made = [_task(node, [], role) for node in range(tasks)]
    join = _task(tasks, [f"t{node}" for node in range(tasks)], role)
    return _document(f"fan-and-join-{tasks}", [*made, join], tasks, role)


def half_done(tasks: int, role: str) -> dict[str, Any]:
    """One half for `role`, and another that waits for agents whom nobody has."""
    half, absent = tasks // 2, f"{role}-absent"
    made = [_task(node, [], role) for node in range(half)]
    made += [_task(node, [f"t{node - half}"], absent) for node in range(half, 2 * half)]
    document = _document(f"half-done-{tasks}", made, tasks, role)
    document["agents"][absent] = None
    return document


def phased(tasks: int) -> dict[str, Any]:
    """Six phases, four of them wide and one a bottleneck, as LIGO's inspiral workflow has."""
    widths = [max(1, round(share * tasks)) for share in PHASES]
    widths[-1] = max(1, tasks - sum(widths[:-1]))
    made: list[dict[str, Any]] = []
    before: range = range(0)
    for width in widths:
        own = range(len(made), len(made) + width)
        for place, node in enumerate(own):
            made.append(_task(node, [f"t{other}" for other in _parents(before, place, width)]))
        before = own
    return _document(f"phased-{len(made)}", made)


def _parents(before: range, place: int, width: int) -> list[int]:
    """Evenly spread: one of a phase as wide, a share of a wider one."""
    if not before:
        return []
    if len(before) <= width:
        return [before[place * len(before) // width]]
    return list(before[place * len(before) // width : (place + 1) * len(before) // width])


def _task(node: int, depends_on: list[str], role: str = ROLE) -> dict[str, Any]:
    return {"task_id": f"t{node}", "agent_role": role, "depends_on": depends_on}


def _document(
    name: str, tasks: list[dict[str, Any]], at_once: int | None = None, role: str = ROLE
) -> dict[str, Any]:
    document = {"name": name, "agents": {role: None}, "tasks": tasks}
    if at_once is not None:
        document["coordination"] = {"max_parallel_tasks": at_once}
    return document
