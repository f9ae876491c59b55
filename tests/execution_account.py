"""A simple account of what happens to an execution, independent of the engine's own state."""

from __future__ import annotations

from typing import Any

from aggregates.decider import Blueprint
from aggregates.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    InputProvided,
    InputRequested,
    PhaseEntered,
    SignalReceived,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
    TaskTimedOut,
)
from tests.undoing_account import UNDOING, UndoingAccount

AGENTS = ("ann", "bob")
TERMINAL = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled)
OPEN = ("scheduled", "running")
OVER = ("failed", "timed_out", "cancelled")


class Account(UndoingAccount):
    """What has happened to one execution, kept simply, and what no event of it may ever do."""

    def keep(self, found: Blueprint, wanted: int | None) -> None:
        """Nothing has happened yet."""
        self.found = found
        self.tasks = {task.task_id: task for task in found.plan.definition.tasks}
        limit = found.plan.definition.max_parallel_tasks
        self.limit = min(limit, wanted or limit)
        self.happened: list[Any] = []
        self.status = dict.fromkeys(self.tasks, "pending")
        self.attempt = dict.fromkeys(self.tasks, 0)
        self.failures = dict.fromkeys(self.tasks, 0)
        self.holder: dict[str, str] = {}
        self.delivery: dict[str, int] = {}
        self.signals: set[str] = set()
        self.phases: list[int] = []
        self.paused = False
        self.ended: str | None = None
        self.undo_nothing()

    def note(self, event: Any) -> None:
        """Our own account, and what no event may ever do."""
        if isinstance(event, UNDOING):
            return self.note_undoing(event)
        if isinstance(event, ExecutionRetried):
            return self.note_retry(event)
        assert self.ended is None, "nothing happens after the end (I8)"
        if isinstance(event, TERMINAL):
            self.check_left(event)
            self.ended = type(event).__name__
            return None
        assert self.outcome is None, f"nothing but undoing: {event}"
        if isinstance(event, ExecutionStarted):
            assert not self.happened
        elif hasattr(event, "task"):
            self.note_turn(event, event.task)
        else:
            self.note_other(event)
        return None

    def note_turn(self, event: Any, task: str) -> None:
        """A turn of a task: from which status to which, in which attempt, by whom (I7)."""
        status = self.status[task]
        if isinstance(event, TaskScheduled):
            assert status == "pending"
            assert event.attempt == self.attempt[task] + 1
            self.check_scheduled(event)
            self.status[task], self.attempt[task] = "scheduled", event.attempt
            self.delivery.pop(task, None)
            return
        assert event.attempt == self.attempt[task]
        match event:
            case TaskStarted():
                assert status == "scheduled"
                self.needs_completed(task)
                self.status[task] = "running"
                self.holder[task], self.delivery[task] = event.agent, event.delivery
            case TaskTakenOver():
                assert status == "running"
                assert event.delivery > self.delivery[task], "a take-over is a later delivery"
                assert event.previous == self.holder[task]
                self.holder[task], self.delivery[task] = event.agent, event.delivery
            case TaskCompleted():
                assert (status, self.holder[task]) == ("running", event.agent)
                self.status[task] = "completed"
                if self.tasks[task].compensation_action is not None:
                    self.order.append(task)
            case TaskFailed():
                assert (status, self.holder[task]) == ("running", event.agent)
                self.status[task] = "pending" if event.retried else "failed"
                self.failures[task] += 1
            case TaskTimedOut():
                assert status == ("running" if event.kind == "run" else "scheduled")
                assert event.agent == (self.holder[task] if event.kind == "run" else None)
                self.status[task] = "pending" if event.retried else "timed_out"
                self.failures[task] += 1
            case InputRequested():
                assert (status, self.holder[task]) == ("running", event.agent)
                self.status[task] = "waiting"
            case InputProvided():
                assert status == "waiting"
                self.status[task] = "pending"
            case TaskCancelled():
                assert status in (*OPEN, "pending", "waiting")
                assert event.attempt > 0
                self.status[task] = "cancelled"
            case _:
                raise AssertionError(event)

    def check_scheduled(self, event: TaskScheduled) -> None:
        """Only what may run, and no more often than it may."""
        assert not self.paused
        policy, before = self.tasks[event.task].retry_policy, self.failures[event.task]
        assert before < policy.max_attempts, "I18"
        assert 0 <= event.delay_ms <= policy.max_backoff_seconds * 1_000
        assert bool(event.delay_ms) <= bool(before)
        self.needs_completed(event.task)

    def note_other(self, event: Any) -> None:
        """What happens to the execution as a whole."""
        match event:
            case PhaseEntered():
                self.phases.append(event.phase)
            case SignalReceived():
                assert event.name not in self.signals
                self.signals.add(event.name)
            case ExecutionPaused():
                assert not self.paused
                self.paused = True
            case ExecutionResumed():
                assert self.paused
                self.paused = False
            case _:
                raise AssertionError(event)

    def note_retry(self, event: ExecutionRetried) -> None:
        """A failed execution goes on, with all attempts of what had not ended well."""
        assert self.ended == "ExecutionFailed"
        assert not self.undo, "what was undone cannot be gone on with"
        assert event.tasks == [task for task, s in self.status.items() if s in OVER]
        for task in event.tasks:
            self.status[task], self.failures[task] = "pending", 0
        self.ended, self.paused = None, False

    def needs_completed(self, task: str) -> None:
        """I17: nothing begins before all that it waits for."""
        assert not self.missing(task)

    def missing(self, task: str) -> list[str]:
        """What a task still waits for."""
        needed = [t for t in self.tasks[task].depends_on if self.status[t] != "completed"]
        return needed + ([f"signal {name}"] if (name := self.unheard(task)) else [])

    def unheard(self, task: str) -> str | None:
        """The signal that a task still waits for."""
        name = self.tasks[task].wait_for
        return None if name in self.signals else name

    def ordered(self, events: list[Any], before: list[Any]) -> None:
        """What was scheduled is the best of all that could be, and as much as could be."""
        chosen = [event.task for event in events if isinstance(event, TaskScheduled)]
        if self.ended or self.paused or self.outcome:
            return
        pending = [task for task, status in self.status.items() if status == "pending"]
        left = sorted(self.rank(task) for task in pending if not self.missing(task))
        if chosen and left:
            assert max(self.rank(task) for task in chosen) < left[0]
        if left and len(self.open()) < self.limit:
            head = left[0][1]
            alone = self.found.plan.exclusive
            running = [self.found.plan.index[task] for task in self.open()]
            assert running, f"{before} then {events}: nothing runs, yet {left} are ready"
            assert alone[head] or any(alone[task] for task in running), "a slot was left free"

    def rank(self, task: str) -> tuple[int, int]:
        return (-self.tasks[task].priority, self.found.plan.index[task])

    def fits(self, answer: Any) -> bool:
        """Whether whoever says this may have the attempt, for all that was heard of it."""
        if self.status[answer.task] != "running":
            return True
        heard = self.delivery[answer.task]
        if answer.agent == self.holder[answer.task]:
            return answer.delivery >= heard
        return answer.delivery > heard

    def name(self, task: int) -> str:
        return list(self.tasks)[task % len(self.tasks)]

    def open(self) -> list[str]:
        return [task for task, status in self.status.items() if status in OPEN]

    def outside(self) -> list[str]:
        """The tasks that wait for somebody outside: for an input, or for a signal."""
        return [
            task
            for task, status in self.status.items()
            if status == "waiting" or (status == "pending" and self.unheard(task))
        ]
