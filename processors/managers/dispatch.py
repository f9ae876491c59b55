"""Dispatch: a scheduled task is given to the agents of its role, until an answer ends it.

What was asked stays outstanding until the event that answers it. From time to time it is checked:
a task that is neither in its stream nor answered was lost with Redis, and is asked again under the
same message id, so that an agent that has done it already answers from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from aggregates.decider import Blueprint, Reference
from processors.agents.wire import Assignment
from processors.managers.manager import Ask, Effect, Manager, Recheck
from streams.message import Event
from streams.partition import commands_key

RECHECK_S = 5.0
CONFIRM_S = 1.0
RECHECK_S_MAX = 60.0  # a long queue is looked at less and less often


@dataclass(slots=True)
class Run:
    """An execution that is under way: what its tasks need to be asked."""

    blueprint: Blueprint
    tenant: str
    input: Any
    open: dict[str, Open] = field(default_factory=dict)


@dataclass(slots=True)
class Open:
    """A task that was scheduled and has not been answered; `ready_at` is when it is asked for."""

    assignment: Assignment
    asked: bool
    ready_at: float
    looks: int = 0


@dataclass(slots=True)
class Dispatch:
    """The runs of one partition and the timers of their open tasks."""

    runs: dict[str, Run] = field(default_factory=dict)
    timers: list[tuple[float, str, str, int]] = field(default_factory=list)


def react(state: Dispatch, event: Event, found: Blueprint | None, now: float) -> list[Effect]:
    """What a fact makes necessary."""
    match event.type:
        case "TaskScheduled":
            return _schedule(state, event, now)
        case "TaskCompleted" | "TaskFailed" | "TaskCancelled":
            if run := state.runs.get(event.root):
                run.open.pop(event.data["task"], None)
        case "ExecutionStarted" if found is not None:
            state.runs[event.root] = Run(found, event.tenant, event.data["input"])
        case "ExecutionCompleted" | "ExecutionFailed" | "ExecutionCancelled":
            state.runs.pop(event.root, None)
    return []


def _schedule(state: Dispatch, event: Event, now: float) -> list[Effect]:
    run = state.runs.get(event.root)
    if run is None:
        return []
    said = event.data
    task = said["task"]
    assignment = _assignment(event.root, event.partition, run, task, said["attempt"])
    delay_s = said["delay_ms"] / 1000
    run.open[task] = Open(assignment, not delay_s, now + delay_s)
    heappush(state.timers, (now + (delay_s or RECHECK_S), event.root, task, said["attempt"]))
    return [] if delay_s else [Ask(assignment)]


def _assignment(root: str, partition: int, run: Run, task: str, attempt: int) -> Assignment:
    plan = run.blueprint.plan
    definition = plan.definition.tasks[plan.index[task]]
    return Assignment(
        execution_id=root,
        task_id=task,
        attempt=attempt,
        role=definition.agent_role,
        tenant=run.tenant,
        input=run.input if definition.input is None else definition.input,
        metadata=definition.metadata,
        timeout_seconds=definition.timeout_seconds,
        reply_to=commands_key(partition),
    )


def due(state: Dispatch, now: float) -> list[Effect]:
    """What the passing of time makes necessary: delayed tasks, and checks of what was asked."""
    effects: list[Effect] = []
    while state.timers and state.timers[0][0] <= now:
        _, root, task, attempt = heappop(state.timers)
        run = state.runs.get(root)
        waiting = run.open.get(task) if run else None
        if waiting is None or waiting.assignment.attempt != attempt:
            continue
        if waiting.asked:
            effects.append(Recheck(waiting.assignment))
            waiting.looks += 1
        else:
            effects.append(Ask(waiting.assignment))
            waiting.asked = True
        heappush(state.timers, (now + _wait_s(waiting.looks), root, task, attempt))
    return effects


def _wait_s(looks: int) -> float:
    """Two looks soon after each other, since only the second may call a task lost; then longer."""
    if looks % 2:
        return CONFIRM_S
    return min(RECHECK_S * 2.0 ** (looks // 2), RECHECK_S_MAX)


def waiting(state: Dispatch) -> bool:
    """Whether anything is under way."""
    return bool(state.runs)


def dump(state: Dispatch, now: float) -> Any:
    """The state as JSON-able data; what waits for its delay with the seconds that remain of it."""
    return {
        root: {
            "workflow_id": run.blueprint.workflow_id,
            "revision": run.blueprint.revision,
            "tenant": run.tenant,
            "input": run.input,
            "open": {
                task: (o.assignment.attempt, o.assignment.reply_to, _remaining_s(o, now))
                for task, o in run.open.items()
            },
        }
        for root, run in state.runs.items()
    }


def _remaining_s(one: Open, now: float) -> float | None:
    return None if one.asked else max(0.0, one.ready_at - now)


def references(data: Any) -> set[Reference]:
    """The revisions that the dumped runs need."""
    return {Reference(run["workflow_id"], run["revision"]) for run in data.values()}


def load(data: Any, found: dict[Reference, Blueprint], now: float) -> Dispatch:
    """The state that `dump` described: what was asked is checked at once, since nobody knows.

    What waited for its delay waits for what was left of it: it may come late, and never early.
    """
    state = Dispatch()
    for root, saved in data.items():
        blueprint = found[Reference(saved["workflow_id"], saved["revision"])]
        run = state.runs[root] = Run(blueprint, saved["tenant"], saved["input"])
        for task, (attempt, reply_to, remaining_s) in saved["open"].items():
            assignment = _assignment(root, 0, run, task, attempt)
            assignment.reply_to = reply_to
            at = now + (remaining_s or 0.0)
            run.open[task] = Open(assignment, remaining_s is None, at)
            heappush(state.timers, (at, root, task, attempt))
    return state


DISPATCH = Manager(
    name="dispatch",
    events=frozenset(
        {
            "TaskScheduled",
            "TaskCompleted",
            "TaskFailed",
            "TaskCancelled",
            "ExecutionStarted",
            "ExecutionCompleted",
            "ExecutionFailed",
            "ExecutionCancelled",
        }
    ),
    initial=Dispatch,
    react=react,
    due=due,
    waiting=waiting,
    dump=dump,
    references=references,
    load=load,
)
