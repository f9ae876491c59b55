"""Deadlines under any interleaving of events, time and restarts, beside a plain account of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aggregates.definitions.model import QUEUE_TIMEOUT_SECONDS as QUEUE_TIMEOUT_S
from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    CompensationStarted,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    InputRequested,
    TaskCancelled,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
    TaskTimedOut,
)
from processors.managers.deadlines import (
    DEADLINES,
    RUN_GRACE_S,
    TAKEOVERS_MAX,
    UNDO_WAIT_S,
)
from processors.managers.manager import Send
from processors.managers.outstanding import RESEND_S_MAX
from tests.flows import ROLE, flow
from tests.spec import after, facts, reacting

LIMITS = {"a": 5.0, "b": 400.0}
FLOW = flow({task: {"timeout_seconds": limit} for task, limit in LIMITS.items()})
START = StartExecution("w")
START._blueprint = FLOW
ROOTS, TASKS = st.sampled_from(["e0", "e1"]), st.sampled_from(["a", "b"])
DUST_S = 1e-6  # what adding and taking away seconds costs


@dataclass
class Due:
    """When something is over, and under which command's id that is said."""

    at: float
    kind: str
    attempt: int
    takeovers: int = 0
    said: bool = False


@dataclass
class Account:
    """What there is to know of one execution."""

    open: dict[str, Due] = field(default_factory=dict)
    expires: float = inf
    left: float = inf
    paused: bool = False
    undoing: bool = False
    said: bool = False


class Deadlined(RuleBasedStateMachine):
    """One manager that is never restarted, one that is, and what they ought to say."""

    def __init__(self) -> None:
        super().__init__()
        self.steady = reacting(DEADLINES, FLOW)
        self.restarted = reacting(DEADLINES, FLOW)
        self.runs: dict[str, Account] = {}
        self.now, self.position, self.attempt = 0.0, 0, 0

    def happen(self, root: str, *events: Any) -> None:
        log = facts(events, root, after=self.position)
        self.position += len(log)
        for manager in (self.steady, self.restarted):
            manager.when(*log, at=self.now).then_nothing()

    @rule(root=ROOTS, limit=st.sampled_from([None, 50.0, 1_000.0]))
    def start(self, root: str, limit: float | None) -> None:
        if root in self.runs:
            return
        started = after(START).happened[0]
        started.timeout_seconds = limit
        self.runs[root] = Account(expires=self.now + (limit or inf))
        self.happen(root, started)

    @precondition(lambda self: self.runs)
    @rule(root=ROOTS, task=TASKS, delay_ms=st.sampled_from([0, 0, 30_000]))
    def schedule(self, root: str, task: str, delay_ms: int) -> None:
        run = self.runs.get(root)
        if run is None or task in run.open:
            return
        self.attempt += 1
        at = self.now + delay_ms / 1_000
        if run.undoing:
            at += UNDO_WAIT_S + LIMITS[task] + RUN_GRACE_S
            run.open[task] = Due(at, "undo", self.attempt)
            self.happen(root, CompensationScheduled(task, self.attempt, ROLE, "x", delay_ms))
        else:
            run.open[task] = Due(at + QUEUE_TIMEOUT_S, "queue", self.attempt)
            self.happen(root, TaskScheduled(task, self.attempt, ROLE, 1, 0, delay_ms))

    @rule(root=ROOTS, task=TASKS)
    def begin(self, root: str, task: str) -> None:
        one = self.open(root, task)
        if one is not None and one.kind == "queue":
            at = self.now + LIMITS[task] + RUN_GRACE_S
            self.runs[root].open[task] = Due(at, "run", one.attempt)
            self.happen(root, TaskStarted(task, one.attempt, "ann"))

    @rule(root=ROOTS, task=TASKS)
    def take_over(self, root: str, task: str) -> None:
        one = self.open(root, task)
        if one is not None and one.kind == "run":
            if one.takeovers < TAKEOVERS_MAX:
                one.takeovers, one.said = one.takeovers + 1, False
                one.at = self.now + LIMITS[task] + RUN_GRACE_S
            self.happen(root, TaskTakenOver(task, one.attempt, "bob"))

    @rule(root=ROOTS, task=TASKS, how=st.integers(0, 4))
    def answer(self, root: str, task: str, how: int) -> None:
        one = self.open(root, task)
        if one is None:
            return
        name = (task, one.attempt, "ann")
        ends: list[Any] = [
            TaskCompleted(*name),
            TaskFailed(*name, "no", True),
            TaskTimedOut(*name, one.kind, "late", True),
            TaskCancelled(task, one.attempt),
            InputRequested(*name),
        ]
        if one.kind == "undo":
            ends = [
                TaskCompensated(*name),
                CompensationFailed(*name, "no", True),
                CompensationParked(task, one.attempt, "no"),
            ]
        del self.runs[root].open[task]
        self.happen(root, ends[how % len(ends)])

    @rule(root=ROOTS)
    def pause_or_resume(self, root: str) -> None:
        run = self.runs.get(root)
        if run is None:
            return
        run.paused = not run.paused
        if not run.paused:
            run.expires = min(run.expires, self.now + run.left)
            run.left = inf
            return self.happen(root, ExecutionResumed(""))
        if not run.said:
            run.left, run.expires = run.expires - self.now, inf
        return self.happen(root, ExecutionPaused(""))

    @rule(root=ROOTS)
    def compensate(self, root: str) -> None:
        run = self.runs.get(root)
        if run is not None and not run.open and not run.undoing:
            run.undoing, run.expires, run.left = True, inf, inf
            self.happen(root, CompensationStarted("failed", "no", None, ["b", "a"]))

    @rule(root=ROOTS, cancelled=st.booleans())
    def end(self, root: str, cancelled: bool) -> None:
        if self.runs.pop(root, None) is not None:
            self.happen(root, ExecutionCancelled("x") if cancelled else ExecutionFailed("x"))

    def open(self, root: str, task: str) -> Due | None:
        run = self.runs.get(root)
        return None if run is None else run.open.get(task)

    @rule(seconds=st.sampled_from([0.3, 4.0, 14.0, 60.0, 420.0, QUEUE_TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        """F10, R33: never early; and what is over is said at once."""
        self.now += seconds
        for manager in (self.steady, self.restarted):
            for effect in manager.at(self.now).effects:
                assert isinstance(effect, Send)
                self.check(effect)
        for run in self.runs.values():
            assert run.said or run.expires > self.now - DUST_S
            assert all(one.said or one.at > self.now - DUST_S for one in run.open.values())

    def check(self, effect: Send) -> None:
        command = effect.command
        run = self.runs[command.root]
        match command.type:
            case "TimeOutExecution":
                assert run.expires <= self.now + DUST_S
                run.said = True
            case "CheckExecution":
                assert not run.open
                assert not run.paused
            case kind:
                one = run.open[command.data["task"]]
                assert command.data["attempt"] == one.attempt
                assert one.at <= self.now + DUST_S
                assert one.kind == command.data.get("kind", "undo")
                assert (kind == "TimeOutCompensation") == (one.kind == "undo")
                one.said = True

    @rule()
    def restart(self) -> None:
        self.restarted = self.restarted.restored(self.now)

    @rule()
    def what_is_outstanding_is_repeated(self) -> None:
        """F12."""
        self.now += RESEND_S_MAX
        wanted = {
            *(
                (root, task)
                for root, r in self.runs.items()
                for task, o in r.open.items()
                if o.said
            ),
            *((root, None) for root, run in self.runs.items() if run.said and not run.undoing),
        }
        for manager in (self.steady, self.restarted):
            effects = manager.at(self.now).effects
            said = {
                (e.command.root, e.command.data.get("task"))
                for e in effects
                if isinstance(e, Send) and e.command.type != "CheckExecution"
            }
            assert wanted <= said
            for effect in effects:
                assert isinstance(effect, Send)
                self.check(effect)

    @invariant()
    def a_restart_changes_nothing(self) -> None:
        """I16: and what is known is what is open."""
        one, other = (summary(manager) for manager in (self.steady, self.restarted))
        assert one == other
        known = {root: {*run["open"]} for root, run in one["runs"].items()}
        assert known == {root: {*run.open} for root, run in self.runs.items()}


def summary(manager: Any) -> Any:
    """The state as data, to the millisecond; how often it was asked after silence may differ."""
    data = orjson.loads(orjson.dumps(DEADLINES.dump(manager.state or DEADLINES.initial(), 0.0)))
    for run in data["runs"].values():
        del run["checks"]
        run["expires"], run["left"] = rounded(run["expires"]), rounded(run["left"])
        run["open"] = {t: [rounded(left), *more] for t, (left, *more) in run["open"].items()}
    data["outstanding"].sort(key=lambda one: one[1]["id"])
    return data


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


TestDeadlined = Deadlined.TestCase
TestDeadlined.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
