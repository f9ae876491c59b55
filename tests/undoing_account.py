"""The part of an execution's account that is about undoing its tasks (I9)."""

from __future__ import annotations

from typing import Any

from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    CompensationStarted,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    TaskCompensated,
)

UNDOING = (
    CompensationStarted,
    CompensationScheduled,
    TaskCompensated,
    CompensationFailed,
    CompensationParked,
)


class UndoingAccount:
    """What was undone, what is being undone, and what cannot be."""

    def undo_nothing(self) -> None:
        """No task has completed yet."""
        self.order: list[str] = []
        self.outcome: str | None = None
        self.reason = ""
        self.culprit: str | None = None
        self.undo: dict[str, str] = {}
        self.undo_attempt: dict[str, int] = {}
        self.undo_failures: dict[str, int] = {}
        self.parked_once: set[str] = set()

    def note_undoing(self, event: Any) -> None:
        """Only what completed is undone, in reverse order of completion, and once."""
        if isinstance(event, CompensationStarted):
            assert self.ended is None
            assert self.outcome is None
            assert not self.manual()
            assert event.tasks == self.order[::-1] != []
            self.outcome, self.reason, self.culprit = event.outcome, event.reason, event.task
            self.undo = dict.fromkeys(event.tasks, "open")
            self.paused = False
            return
        task = event.task
        assert task in self.order
        if isinstance(event, CompensationScheduled):
            self.note_scheduled(event)
            return
        attempt = event.attempts if isinstance(event, CompensationParked) else event.attempt
        assert attempt == self.undo_attempt[task]
        match event:
            case TaskCompensated():
                assert self.undo[task] == "scheduled"
                self.undo[task] = "undone"
            case CompensationFailed():
                assert self.undo[task] == "scheduled"
                self.undo[task] = "open" if event.retried else "hopeless"
                self.undo_failures[task] += 1
            case CompensationParked():
                assert self.undo[task] == "hopeless"
                self.undo[task] = "parked"
                self.parked_once.add(task)

    def note_scheduled(self, event: CompensationScheduled) -> None:
        """An attempt to undo a task: in its order, or again, or because a person said so."""
        task = event.task
        assert event.attempt == self.undo_attempt.get(task, 0) + 1
        status = self.undo.get(task, "parked" if self.ended and self.manual() else "unknown")
        assert status in ("open", "parked")
        if status == "parked":
            self.undo_failures[task] = 0
        elif event.attempt == 1:
            assert self.ended is None
            later = list(self.undo)[: list(self.undo).index(task)]
            assert all(self.settled(each) for each in later), "I9"
            self.undo_failures[task] = 0
        policy = self.tasks[task].retry_policy
        assert self.undo_failures[task] < policy.max_attempts
        assert bool(event.delay_ms) <= bool(self.undo_failures[task])
        self.undo[task], self.undo_attempt[task] = "scheduled", event.attempt

    def settled(self, task: str) -> bool:
        """Whether others need not wait for it."""
        return task in self.parked_once or self.undo[task] == "undone"

    def manual(self) -> bool:
        return self.found.plan.definition.coordination.compensation == "manual"

    def check_left(self, event: Any) -> None:
        """The end says exactly what was undone, and what was not."""
        if isinstance(event, ExecutionCompleted):
            assert self.outcome is None
            return
        said = (event.compensated, event.not_compensated)
        if not self.order:
            assert said == (None, None)
        elif self.manual():
            assert said == ([], self.order[::-1])
        else:
            undone = [task for task, status in self.undo.items() if status == "undone"]
            assert said == (undone, [task for task in self.undo if task not in undone])
            assert all(self.settled(task) for task in self.undo)
            assert event.reason == self.reason
            assert isinstance(event, END[self.outcome])
            assert getattr(event, "task", None) == self.culprit
        self.outcome = None
        for task, status in self.undo.items():
            if status != "undone":  # a person may have it tried again; nobody is waited for
                self.undo[task] = "parked"
                self.parked_once.add(task)


END = {"failed": ExecutionFailed, "cancelled": ExecutionCancelled}
