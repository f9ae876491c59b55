"""Random workflows, and a simple account of what happens to an execution of one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from aggregates.decider import Blueprint
from aggregates.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    PhaseEntered,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTakenOver,
)
from tests.flows import flow

TASKS_MAX = 8
AGENTS = ("ann", "bob")
TERMINAL = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled)
OPEN = ("scheduled", "running")


@st.composite
def flows(draw: st.DrawFn) -> Blueprint:
    """Tasks that depend on some of those before them, with everything that changes their order."""
    count = draw(st.sampled_from([4, 1, 2, 3, 5, 6, 7, TASKS_MAX]))
    tasks: dict[str, Any] = {}
    for n in range(count):
        before = list(tasks)
        tasks[f"t{n}"] = {
            "depends_on": draw(st.lists(st.sampled_from(before), max_size=2)) if before else [],
            "priority": draw(st.integers(-1, 1)),
            "parallel": draw(st.sampled_from([None, None, True, False])),
            "retry_policy": {
                "max_attempts": draw(st.sampled_from([1, 2, 3, 3, 4])),
                "initial_backoff_seconds": draw(st.integers(0, 5)),
                "non_retryable_errors": ["Fatal"],
            },
        }
    limit = draw(st.sampled_from([3, 2, 1, 4, TASKS_MAX]))
    return flow(tasks, limit=limit, all_alone=draw(st.sampled_from([False] * 5 + [True])))


class Account:
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
        self.holder: dict[str, str] = {}
        self.delivery: dict[str, int] = {}
        self.phases: list[int] = []
        self.paused = False
        self.ended: str | None = None

    def note(self, event: Any) -> None:
        """Our own account, and what no event may ever do."""
        assert self.ended is None, "nothing happens after the end (I8)"
        match event:
            case TaskScheduled():
                assert self.status[event.task] == "pending"
                assert not self.paused
                assert event.attempt == self.attempt[event.task] + 1
                policy = self.tasks[event.task].retry_policy
                assert event.attempt <= policy.max_attempts, "I18"
                assert 0 <= event.delay_ms <= policy.max_backoff_seconds * 1_000
                assert bool(event.delay_ms) <= (event.attempt > 1)
                self.needs_completed(event.task)
                self.status[event.task] = "scheduled"
                self.attempt[event.task] = event.attempt
                self.delivery.pop(event.task, None)
            case TaskStarted():
                assert self.status[event.task] == "scheduled"
                assert event.attempt == self.attempt[event.task]
                self.needs_completed(event.task)
                self.status[event.task] = "running"
                self.holder[event.task] = event.agent
                self.delivery[event.task] = event.delivery
            case TaskTakenOver():
                assert self.status[event.task] == "running"
                assert event.attempt == self.attempt[event.task]
                assert event.delivery > self.delivery[event.task], "a take-over is a later delivery"
                self.holder[event.task] = event.agent
                self.delivery[event.task] = event.delivery
            case TaskCompleted():
                assert self.status[event.task] == "running"
                assert event.attempt == self.attempt[event.task]
                assert event.agent == self.holder[event.task]
                self.status[event.task] = "completed"
            case TaskFailed():
                assert self.status[event.task] == "running"
                assert event.attempt == self.attempt[event.task]
                assert event.agent == self.holder[event.task]
                self.status[event.task] = "pending" if event.retried else "failed"
            case TaskCancelled():
                assert self.status[event.task] in (*OPEN, "pending")
                assert event.attempt == self.attempt[event.task] > 0
                self.status[event.task] = "cancelled"
            case PhaseEntered():
                self.phases.append(event.phase)
            case ExecutionPaused():
                assert not self.paused
                self.paused = True
            case ExecutionResumed():
                assert self.paused
                self.paused = False
            case _ if isinstance(event, TERMINAL):
                self.ended = type(event).__name__
            case _:
                assert isinstance(event, ExecutionStarted)
                assert not self.happened

    def needs_completed(self, task: str) -> None:
        needed = self.tasks[task].depends_on
        assert all(self.status[one] == "completed" for one in needed), "I17"

    def ordered(self, events: list[Any], before: list[Any]) -> None:
        """What was scheduled is the best of all that could be, and as much as could be."""
        chosen = [event.task for event in events if isinstance(event, TaskScheduled)]
        if self.ended or self.paused:
            return
        ready = [
            task
            for task, status in self.status.items()
            if status == "pending"
            and all(self.status[one] == "completed" for one in self.tasks[task].depends_on)
        ]
        left = sorted(self.rank(task) for task in ready)
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
