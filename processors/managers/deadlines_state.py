"""What the deadlines manager remembers: what is open since when, and when to look at it next.

A partition may have many open tasks and most end in time, so an execution has one entry in the heap
of looks, not one a task: the earliest of its deadlines. Whoever is looked at finds the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappush
from math import inf
from typing import Any

from aggregates.decider import Blueprint, Reference
from aggregates.definitions.model import TIMEOUT_SECONDS
from processors.managers.outstanding import Outstanding

NEVER = inf
QUEUE, RUN, UNDO = "queue", "run", "undo"
COMPACT_MIN = 1_000  # fewer looks than this are not worth a walk over the runs


@dataclass(slots=True)
class Open:
    """An attempt that somebody has to end by `at`; `position` is the event that began its time."""

    at: float
    kind: str
    attempt: int
    position: int
    takeovers: int = 0


@dataclass(slots=True)
class Run:
    """An execution that is under way; `found` is None where only an undoing is tried again.

    `expires` is its own deadline, or while it is paused `left` the seconds that remain of it.
    `heard` and `checked` are when it was heard of and asked last, `quiet` how often in vain since.
    """

    found: Blueprint | None
    tenant: str
    partition: int
    position: int
    heard: float
    expires: float = NEVER
    left: float | None = None
    paused: bool = False
    checked: float = -NEVER
    quiet: int = 0
    checks: int = 0
    look: float = NEVER
    open: dict[str, Open] = field(default_factory=dict)

    def task_s(self, task: str) -> float:
        """A task's own time limit, in seconds."""
        if self.found is None:
            return TIMEOUT_SECONDS
        plan = self.found.plan
        return plan.definition.tasks[plan.index[task]].timeout_seconds


@dataclass(slots=True)
class Deadlines:
    """The runs of one partition, when each is looked at next, and what was sent about them."""

    runs: dict[str, Run] = field(default_factory=dict)
    looks: list[tuple[float, str]] = field(default_factory=list)
    outstanding: Outstanding = field(default_factory=Outstanding)

    def look(self, root: str, run: Run, at: float) -> None:
        """Look at a run at `at`, if it is not looked at before that anyway."""
        if at >= run.look:
            return
        run.look = at
        if len(self.looks) > COMPACT_MIN + 2 * len(self.runs):  # those of runs that have ended
            self.looks = [(one.look, name) for name, one in self.runs.items()]
            heapify(self.looks)
        else:
            heappush(self.looks, (at, root))


def waiting(state: Deadlines) -> bool:
    """Whether anything is under way."""
    return bool(state.runs)


def dump(state: Deadlines, now: float) -> Any:
    """The state as JSON-able data; deadlines as the seconds that remain, None where it is over."""
    return {
        "outstanding": state.outstanding.dump(),
        "runs": {root: _dump_run(run, now) for root, run in state.runs.items()},
    }


def _dump_run(run: Run, now: float) -> dict[str, Any]:
    found = run.found
    return {
        "workflow": None if found is None else (found.workflow_id, found.revision),
        "tenant": run.tenant,
        "partition": run.partition,
        "position": run.position,
        "expires": _left(run.expires, now),
        "left": run.left,
        "paused": run.paused,
        "checks": run.checks,
        "open": {
            task: (_left(one.at, now), one.kind, one.attempt, one.position, one.takeovers)
            for task, one in run.open.items()
        },
    }


def _left(at: float, now: float) -> float | None:
    return None if at == NEVER else max(0.0, at - now)


def references(data: Any) -> set[Reference]:
    """The revisions that the dumped runs need."""
    return {Reference(*run["workflow"]) for run in data["runs"].values() if run["workflow"]}


def load(data: Any, found: dict[Reference, Blueprint], now: float) -> Deadlines:
    """The state that `dump` described; silence begins now."""
    state = Deadlines(outstanding=Outstanding.load(data["outstanding"], now))
    for root, saved in data["runs"].items():
        workflow = saved["workflow"]
        blueprint = found[Reference(*workflow)] if workflow else None
        run = Run(blueprint, saved["tenant"], saved["partition"], saved["position"], now)
        run.expires, run.left = _at(saved["expires"], now), saved["left"]
        run.paused, run.checks = saved["paused"], saved["checks"]
        for task, (left, kind, attempt, position, takeovers) in saved["open"].items():
            run.open[task] = Open(_at(left, now), kind, attempt, position, takeovers)
        state.runs[root] = run
        state.look(root, run, now)
    return state


def _at(left: float | None, now: float) -> float:
    return NEVER if left is None else now + left
