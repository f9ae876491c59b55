"""Compensation: the completed tasks of an execution that ends early are undone, one by one.

In the order that CompensationStarted names, which is the reverse of their completion. The next one
begins when the one before was undone, or was parked for a person; when none is left, the execution
is told to end. Agents, attempts and time-outs are others' business: here is only the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aggregates.decider import Blueprint, Reference
from processors.managers.manager import Effect, Manager
from processors.managers.outstanding import Outstanding
from streams.message import Command, Event

ACTOR = "compensation"
NEXT = "next"
"""The name of what is outstanding: one command at a time for each execution."""


@dataclass(slots=True)
class Undoing:
    """What is left to be undone, the next one last, and what is being undone.

    That is one task at a time; a person who has a parked one tried again may add some.
    """

    tasks: list[str]
    under_way: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Compensation:
    """The executions of one partition that are being undone, and what was said to them."""

    undoing: dict[str, Undoing] = field(default_factory=dict)
    outstanding: Outstanding = field(default_factory=Outstanding)


def react(state: Compensation, event: Event, _: Blueprint | None, now: float) -> list[Effect]:
    """What a fact makes necessary."""
    root, said = event.root, event.data
    if event.type == "CompensationStarted":
        if root in state.undoing:
            return []
        state.undoing[root] = Undoing(said["tasks"][::-1])
        return _go_on(state, event, now)
    undoing = state.undoing.get(root)
    if undoing is None:
        return []
    match event.type:
        case "CompensationScheduled":
            task = said["task"]
            if undoing.tasks and undoing.tasks[-1] == task:
                undoing.tasks.pop()
                state.outstanding.answered(root, NEXT)
            undoing.under_way.add(task)
        case "TaskCompensated" | "CompensationParked":
            if said["task"] in undoing.under_way:
                undoing.under_way.discard(said["task"])
                return _go_on(state, event, now)
        case "CommandRejected":
            if state.outstanding.refused(event) and undoing.tasks:
                undoing.tasks.pop()  # there is nothing to undo: the others are not held up by it
                return _go_on(state, event, now)
        case "ExecutionFailed" | "ExecutionCancelled":
            del state.undoing[root]
            state.outstanding.ended(root)
    return []


def _go_on(state: Compensation, event: Event, now: float) -> list[Effect]:
    """Have the next task undone, or the execution ended; nothing while one is being undone."""
    undoing = state.undoing[event.root]
    if undoing.under_way:
        return []
    kind, data = "EndCompensation", {}
    if undoing.tasks:
        kind, data = "CompensateTask", {"task": undoing.tasks[-1]}
    command = Command(
        id=f"{ACTOR}:{event.partition}:{event.position}",
        type=kind,
        aggregate="execution",
        root=event.root,
        data=data,
        tenant=event.tenant,
        actor=ACTOR,
        causation=f"{event.partition}-{event.position}",
    )
    return [state.outstanding.send(NEXT, command, now)]


def due(state: Compensation, now: float) -> list[Effect]:
    """What was said and not answered."""
    return state.outstanding.due(now)


def waiting(state: Compensation) -> bool:
    """Whether anything is being undone."""
    return bool(state.undoing)


def dump(state: Compensation, now: float) -> Any:
    """The state as JSON-able data."""
    return {
        "undoing": {
            root: {"tasks": one.tasks, "under_way": sorted(one.under_way)}
            for root, one in state.undoing.items()
        },
        "outstanding": state.outstanding.dump(),
    }


def load(data: Any, found: dict[Reference, Blueprint], now: float) -> Compensation:
    """The state that `dump` described; what is outstanding is said again at once."""
    return Compensation(
        {
            root: Undoing(list(one["tasks"]), set(one["under_way"]))
            for root, one in data["undoing"].items()
        },
        Outstanding.load(data["outstanding"], now),
    )


COMPENSATION = Manager(
    name=ACTOR,
    events=frozenset(
        {
            "CompensationStarted",
            "CompensationScheduled",
            "TaskCompensated",
            "CompensationParked",
            "CommandRejected",
            "ExecutionFailed",
            "ExecutionCancelled",
        }
    ),
    initial=Compensation,
    react=react,
    due=due,
    waiting=waiting,
    dump=dump,
    load=load,
)
