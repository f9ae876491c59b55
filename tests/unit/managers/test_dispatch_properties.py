"""Dispatch under any interleaving of events, time and restarts."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.decider import fold
from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    CompleteTask,
    FailTask,
    PauseExecution,
    ResumeExecution,
    StartExecution,
)
from aggregates.execution_state import Execution
from aggregates.problem import Refused
from processors.managers.dispatch import DISPATCH
from processors.managers.manager import Ask, Recheck, Withdraw
from streams.message import Event
from tests.flows import flow
from tests.spec import NOW, Reacting, facts, reacting

POLICY = {"max_attempts": 3, "initial_backoff_seconds": 1, "jitter": False}
RUNNABLE = flow(a=[], b=["a"], c=["a"], d=["b", "c"], limit=2, policy=POLICY)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["done", "done", "fail", "pause", "cancel"])),
    max_size=30,
)


def histories(steps: list[tuple[int, str]]) -> list[Event]:
    """What three executions really did when this was said to them, in one partition's order."""
    states = [Execution(f"e{n}") for n in range(3)]
    log: list[Event] = []
    start = StartExecution("w", input={"n": 2})
    start._blueprint = RUNNABLE
    for n, said in [(0, "start"), (1, "start"), (2, "start"), *steps]:
        events = decided(states[n], start if said == "start" else command(states[n], said))
        if events:
            log += facts(events, f"e{n}", after=len(log))
        states[n] = fold(EXECUTION, f"e{n}", events, states[n])
    return log


def command(state: Execution, said: str) -> Any:
    if said in ("done", "fail"):
        open_ = [n for n, status in enumerate(state.task_status) if status in (1, 2)]
        place = open_[0] if open_ else 0
        task = RUNNABLE.plan.ids[place]
        given = (task, state.attempts[place], "ann")
        return CompleteTask(*given) if said == "done" else FailTask(*given, "no")
    if said == "pause":
        return ResumeExecution() if state.status == "paused" else PauseExecution()
    return CancelExecution()


def decided(state: Execution, said: Any) -> list[Any]:
    try:
        return EXECUTION.decide(state, said, NOW)
    except Refused:
        return []


def key(root: str, task: str, attempt: int) -> tuple[str, str, int]:
    return (root, task, attempt)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.lists(st.integers(0, 8), min_size=1, max_size=40), st.sets(st.integers(0, 200)))
def test_every_attempt_is_asked_for_once_while_it_is_open(
    steps: list[tuple[int, str]], waits: list[int], restarts: set[int]
) -> None:
    """I4, I13, I16: under any interleaving of events, time and restarts."""
    log = histories(steps)
    live, now = reacting(DISPATCH, RUNNABLE), 0.0
    open_: dict[tuple[str, str, int], float] = {}
    asks: dict[tuple[str, str, int], int] = {}
    checked: list[tuple[str, str, int]] = []
    for place, event in enumerate(log):
        if place in restarts:
            live = live.restored(now)
        live.when(event, at=now)
        note(open_, event, now)
        count(live, asks, checked, open_, now)
        now += waits[place % len(waits)]
        live.at(now)
        count(live, asks, checked, open_, now)
        known = {
            key(root, task, one.assignment.attempt)
            for root, run in live.state.runs.items()
            for task, one in run.open.items()
        }
        assert known == open_.keys()
    for attempt, ready_at in open_.items():
        assert attempt in asks or ready_at > now or attempt in checked
    assert all(times == 1 for times in asks.values())
    folded = reacting(DISPATCH, RUNNABLE).given(*log)
    assert summary(live) == summary(folded) == summary(live.restored())


def note(open_: dict[tuple[str, str, int], float], event: Event, now: float) -> None:
    """Our own account of what is open, and from when on it may be asked for."""
    said = event.data
    if event.type == "TaskScheduled":
        ready_at = now + said["delay_ms"] / 1_000
        open_[key(event.root, said["task"], said["attempt"])] = ready_at
    elif event.type in ("TaskCompleted", "TaskFailed", "TaskCancelled"):
        open_.pop(key(event.root, said["task"], said["attempt"]), None)
    elif event.type in ("ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"):
        assert not [one for one in open_ if one[0] == event.root]


def count(
    live: Reacting,
    asks: dict[tuple[str, str, int], int],
    checked: list[tuple[str, str, int]],
    open_: dict[tuple[str, str, int], float],
    now: float,
) -> None:
    for effect in live.effects:
        assert isinstance(effect, Ask | Recheck | Withdraw)
        one = effect.assignment
        name = key(one.execution_id, one.task_id, one.attempt)
        if isinstance(effect, Withdraw):
            assert name not in open_, "withdrawn while it is wanted"
            assert name in asks, "withdrawn before it was asked for"
            continue
        assert open_[name] <= now, "asked for before its delay had passed, or after its answer"
        if isinstance(effect, Ask):
            asks[name] = asks.get(name, 0) + 1
        else:
            assert name in asks, "checked before it was asked for"
            checked.append(name)


def summary(live: Reacting) -> Any:
    """The state without its timers, as data."""
    data = DISPATCH.dump(live.state, live.now)
    for run in data["runs"].values():
        run["open"] = {task: said[:2] for task, said in run["open"].items()}
    return orjson.loads(orjson.dumps(data))
