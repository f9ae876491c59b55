"""What is said when a deadline has passed, or when nothing is heard for long."""

from __future__ import annotations

from heapq import heappop
from typing import Any

from processors.managers.deadlines_state import NEVER, RUN, UNDO, Deadlines, Open, Run
from processors.managers.manager import Effect, Send
from streams.message import Command

ACTOR = "deadlines"
SILENCE_S = 60.0
SILENCE_S_MAX = 3_600.0

EXECUTION = ""
"""The name of what is outstanding for an execution as a whole; tasks' have the tasks' ids."""


def due(state: Deadlines, now: float) -> list[Effect]:
    """What is over, and what was said about it and not answered."""
    effects = state.outstanding.due(now)
    while state.looks and state.looks[0][0] <= now:
        at, root = heappop(state.looks)
        run = state.runs.get(root)
        if run is None or run.look != at:
            continue
        effects += _overdue(state, root, run, now)
        run.look = NEVER
        open_at = min((one.at for one in run.open.values()), default=NEVER)
        state.look(root, run, min(open_at, run.expires, _silent_at(run)))
    return effects


def _overdue(state: Deadlines, root: str, run: Run, now: float) -> list[Effect]:
    effects: list[Effect] = []
    for task, one in run.open.items():
        if one.at <= now:
            one.at = NEVER
            command = _time_out(root, run, task, one)
            effects.append(state.outstanding.send(task, command, now))
    if run.expires <= now:
        run.expires = NEVER
        command = _command(root, run, run.position, "TimeOutExecution", {"reason": _LATE})
        effects.append(state.outstanding.send(EXECUTION, command, now))
    if _silent_at(run) <= now:
        effects += _ask(root, run, now)
    return effects


_LATE = "The execution's own time limit has passed."


def _time_out(root: str, run: Run, task: str, one: Open) -> Command:
    said: dict[str, Any] = {"task": task, "attempt": one.attempt}
    seconds = run.task_s(task)
    if one.kind == UNDO:
        said["reason"] = f"Nobody has undone it in {seconds:g} s."
        return _command(root, run, one.position, "TimeOutCompensation", said)
    said["kind"] = one.kind
    if one.kind == RUN:
        said["reason"] = f"No answer in {seconds:g} s."
    else:
        said["reason"] = "No agent has taken it in time."
    return _command(root, run, one.position, "TimeOutTask", said)


def _silent_at(run: Run) -> float:
    """When it is time to ask, less and less often while nothing is heard."""
    pause_s = min(SILENCE_S * 2.0 ** min(run.quiet, 10), SILENCE_S_MAX)
    return max(run.heard, run.checked) + pause_s


def _ask(root: str, run: Run, now: float) -> list[Effect]:
    """Ask an execution how it is, unless it is known why nothing is heard.

    Not outstanding: there is no answer where it is well, and it is asked again anyway.
    """
    run.checked = now
    if run.open or run.paused:
        return []
    run.quiet += 1
    run.checks += 1
    return [Send(_command(root, run, run.position, "CheckExecution", {}, f":{run.checks}"))]


def _command(
    root: str, run: Run, position: int, kind: str, data: dict[str, Any], suffix: str = ""
) -> Command:
    """A command whose id is that of the event that began the time that is over."""
    return Command(
        id=f"deadlines:{run.partition}:{position}{suffix}",
        type=kind,
        aggregate="execution",
        root=root,
        data=data,
        tenant=run.tenant,
        actor=ACTOR,
        causation=f"{run.partition}-{position}",
    )
