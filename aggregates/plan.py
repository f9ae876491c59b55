"""A definition as a plan: compact integers, so that one completed task costs its successors only.

Made when a workflow is written, and again from its canonical bytes whenever an engine starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from aggregates.definition import Definition
from aggregates.definitions.graph import Links, generations, link

CRITICAL_PATH_IDS_MAX = 1000  # a chain of 20,000 is its own picture; nobody reads it as a list


@dataclass(frozen=True, slots=True)
class Plan:
    """What walking through a workflow needs; a task is its place in the definition, from 0.

    `phase` is counted from 1; `phase_sizes[0]` is the size of phase 1. `signals` are the tasks that
    wait for each signal, `undoing` the role and action that undo a task, where there are some.
    `critical_path` names the tasks that cannot be late without the whole being late: most seconds,
    then most tasks.
    """

    definition: Definition
    ids: tuple[str, ...]
    index: dict[str, int]
    successors: tuple[tuple[int, ...], ...]
    in_degree: tuple[int, ...]
    edges: int
    roles: tuple[str, ...]
    role: tuple[int, ...]
    priority: tuple[int, ...]
    exclusive: tuple[bool, ...]
    sinks: tuple[int, ...]
    phase: tuple[int, ...]
    phase_sizes: tuple[int, ...]
    signals: dict[str, tuple[int, ...]]
    undoing: dict[int, tuple[str, str]]
    critical_path: tuple[str, ...]
    critical_path_tasks: int
    critical_path_seconds: float

    @property
    def phases(self) -> int:
        """How many phases there are: the length of the longest chain."""
        return len(self.phase_sizes)


def plan(definition: Definition) -> Plan:
    """The plan of a checked definition."""
    tasks = definition.tasks
    ids = tuple([task.task_id for task in tasks])
    index = {task_id: place for place, task_id in enumerate(ids)}
    links = link(tasks, index)
    phases = generations(links)
    phase = [0] * len(ids)
    for number, members in enumerate(phases, 1):
        for task in members:
            phase[task] = number
    roles = tuple(sorted(definition.agents))  # the canonical bytes keep no order of theirs
    role_places = {role: place for place, role in enumerate(roles)}
    alone = not definition.coordination.default_parallel
    path, seconds = _critical_path(definition, links, phases)
    return Plan(
        definition=definition,
        ids=ids,
        index=index,
        successors=tuple(map(tuple, links.successors)),
        in_degree=tuple(links.in_degree),
        edges=sum(links.in_degree),
        roles=roles,
        role=tuple([role_places[task.agent_role] for task in tasks]),
        priority=tuple([task.priority for task in tasks]),
        exclusive=tuple([alone if task.parallel is None else not task.parallel for task in tasks]),
        sinks=tuple([task for task, after in enumerate(links.successors) if not after]),
        phase=tuple(phase),
        phase_sizes=tuple(map(len, phases)),
        signals=_signals(definition),
        undoing={n: done for n, task in enumerate(tasks) if (done := task.undoing) is not None},
        critical_path=tuple([ids[task] for task in path[:CRITICAL_PATH_IDS_MAX]]),
        critical_path_tasks=len(path),
        critical_path_seconds=seconds,
    )


def graph(drawn: Plan) -> nx.DiGraph[str]:
    """The plan as a networkx graph of ids, for questions that are asked rarely."""
    found: nx.DiGraph[str] = nx.DiGraph()
    found.add_nodes_from(drawn.ids)
    ids = drawn.ids
    found.add_edges_from(
        (ids[task], ids[after])
        for task, all_after in enumerate(drawn.successors)
        for after in all_after
    )
    return found


def _signals(definition: Definition) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for number, task in enumerate(definition.tasks):
        if task.wait_for is not None:
            found.setdefault(task.wait_for, []).append(number)
    return {name: tuple(tasks) for name, tasks in found.items()}


def _critical_path(
    definition: Definition, links: Links, phases: list[list[int]]
) -> tuple[list[int], float]:
    """The longest path by seconds, then by tasks, and its seconds."""
    count = len(definition.tasks)
    own = [task.duration_seconds for task in definition.tasks]
    before = [0.0] * count  # seconds of the longest way to the task, without the task itself
    steps = [0] * count
    previous = [-1] * count
    for members in phases:
        for task in members:
            seconds, length = before[task] + own[task], steps[task] + 1
            for after in links.successors[task]:
                if seconds > before[after] or (seconds == before[after] and length > steps[after]):
                    before[after], steps[after], previous[after] = seconds, length, task
    if not count:
        return [], 0.0
    last = max(range(count), key=lambda task: (before[task] + own[task], steps[task]))
    path = []
    step = last
    while step >= 0:
        path.append(step)
        step = previous[step]
    return path[::-1], round(before[last] + own[last], 6)  # microseconds; no binary dust
