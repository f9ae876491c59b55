"""What dispatch remembers: the executions under way, what was asked of whom, what agents need.

Of an execution that has ended, a record is kept where it may be needed again: a compensation that
was parked can be tried again by a person, with what its task had delivered; and a failed execution
that is retried does not get its signals a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappush
from typing import Any

from aggregates.decider import Blueprint, Reference
from processors.agents.wire import COMPENSATION, Assignment
from processors.allocation.need import Need, needs
from streams.partition import commands_key
from streams.sealing.token import is_sealed

ENDED_RUNS_MAX = 10_000  # a partition; beyond it, the oldest can be undone by hand only


@dataclass(slots=True)
class Open:
    """A task that was scheduled and has not been answered; `ready_at` is when it is asked for."""

    assignment: Assignment
    asked: bool
    ready_at: float
    looks: int = 0


@dataclass(slots=True)
class Run:
    """An execution: what its tasks need to be asked, and to be undone.

    `outputs` are those of completed tasks that can be undone, `inputs` those that were edited for a
    retry, `answers` what was said to tasks that asked for input; all by task. `signals` is by name.
    """

    blueprint: Blueprint
    tenant: str
    input: Any
    open: dict[str, Open] = field(default_factory=dict)
    undoable: frozenset[str] = frozenset()
    outputs: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, Need] = field(default_factory=dict)
    """By role, where agents are chosen and do not pull."""

    def __post_init__(self) -> None:
        self.needs = needs(self.blueprint.plan.definition)
        plan = self.blueprint.plan
        self.undoable = frozenset([plan.ids[task] for task in plan.undoing])

    def assignment(self, root: str, partition: int, task: str, attempt: int) -> Assignment:
        """The attempt as its agent gets it."""
        plan = self.blueprint.plan
        definition = plan.definition.tasks[plan.index[task]]
        given = self.input if definition.input is None else definition.input
        made = Assignment(
            execution_id=root,
            task_id=task,
            attempt=attempt,
            role=definition.agent_role,
            tenant=self.tenant,
            input=given,
            metadata=definition.metadata,
            timeout_seconds=definition.timeout_seconds,
            reply_to=commands_key(partition),
        )
        if self.inputs:
            made.input = self.inputs.get(task, given)
        if given is definition.input and made.input is given and is_sealed(given):
            made.workflow = self.blueprint.workflow_id
        if self.answers:
            made.answer = self.answers.get(task)
        if self.signals:
            made.signal = self.signals.get(definition.wait_for or "")
        return made

    def undoing(self, root: str, partition: int, said: Mapping[str, Any]) -> Assignment:
        """An attempt to undo a task, as the agent gets it, from what CompensationScheduled says."""
        made = self.assignment(root, partition, said["task"], said["attempt"])
        made.kind, made.role, made.action = COMPENSATION, said["role"], said["action"]
        made.output = self.outputs.get(said["task"])
        made.answer = made.signal = None
        return made


@dataclass(slots=True)
class Dispatch:
    """The runs of one partition and the timers of their open tasks."""

    runs: dict[str, Run] = field(default_factory=dict)
    ended: dict[str, Run] = field(default_factory=dict)
    timers: list[tuple[float, str, str, str, int]] = field(default_factory=list)

    def find(self, root: str) -> Run | None:
        """A run, also one that has ended and is remembered."""
        return self.runs.get(root) or self.ended.get(root)

    def end(self, root: str, kept: Run | None) -> None:
        """The run has ended; it is remembered where it may be needed again."""
        self.runs.pop(root, None)
        if kept is not None:
            self.ended[root] = kept
            if len(self.ended) > ENDED_RUNS_MAX:
                del self.ended[next(iter(self.ended))]

    def wake(self, at: float, one: Assignment) -> None:
        """Look at an attempt at this time."""
        heappush(self.timers, (at, one.execution_id, one.task_id, one.kind, one.attempt))


def waiting(state: Dispatch) -> bool:
    """Whether anything is under way."""
    return bool(state.timers)


def dump(state: Dispatch, now: float) -> Any:
    """The state as JSON-able data; what waits for its delay with the seconds that remain of it."""
    return {
        "runs": {root: _dump_run(run, now) for root, run in state.runs.items()},
        "ended": {root: _dump_run(run, now) for root, run in state.ended.items()},
    }


_SELDOM = ("outputs", "inputs", "answers", "signals")


def _dump_run(run: Run, now: float) -> dict[str, Any]:
    data: dict[str, Any] = {
        "workflow_id": run.blueprint.workflow_id,
        "revision": run.blueprint.revision,
        "tenant": run.tenant,
        "input": run.input,
        "open": {task: _dump_open(one, now) for task, one in run.open.items()},
    }
    return data | {name: kept for name in _SELDOM if (kept := getattr(run, name))}


def _dump_open(one: Open, now: float) -> list[Any]:
    made = one.assignment
    remaining_s = None if one.asked else max(0.0, one.ready_at - now)
    undo = [made.role, made.action] if made.kind == COMPENSATION else []
    return [made.attempt, made.reply_to, remaining_s, *undo]


def references(data: Any) -> set[Reference]:
    """The revisions that the dumped runs need."""
    return {
        Reference(run["workflow_id"], run["revision"])
        for part in ("runs", "ended")
        for run in data[part].values()
    }


def load(data: Any, found: dict[Reference, Blueprint], now: float) -> Dispatch:
    """The state that `dump` described: what was asked is checked at once, since nobody knows.

    What waited for its delay waits for what was left of it: it may come late, and never early.
    """
    state = Dispatch()
    for root, saved in data["runs"].items():
        state.runs[root] = _load_run(state, root, saved, found, now)
    for root, saved in data["ended"].items():
        state.ended[root] = _load_run(state, root, saved, found, now)
    return state


def _load_run(
    state: Dispatch, root: str, saved: Any, found: dict[Reference, Blueprint], now: float
) -> Run:
    blueprint = found[Reference(saved["workflow_id"], saved["revision"])]
    run = Run(blueprint, saved["tenant"], saved["input"])
    for name in _SELDOM:
        setattr(run, name, saved.get(name, {}))
    for task, (attempt, reply_to, remaining_s, *undo) in saved["open"].items():
        made = run.assignment(root, 0, task, attempt)
        if undo:
            said = {"task": task, "attempt": attempt, "role": undo[0], "action": undo[1]}
            made = run.undoing(root, 0, said)
        made.reply_to = reply_to
        at = now + (remaining_s or 0.0)
        run.open[task] = Open(made, remaining_s is None, at)
        state.wake(at, made)
    return run
