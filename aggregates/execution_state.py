"""What an execution remembers, in integers and bytes: about 40 bytes a task.

The plan is shared by all executions of one revision; only what changes is kept here. Every change
has one method, called by `execution.evolve` alone.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

from aggregates.decider import Blueprint
from aggregates.plan import Plan

PENDING, SCHEDULED, RUNNING, COMPLETED, FAILED, CANCELLED = range(6)
TASK_STATUSES = ("pending", "scheduled", "running", "completed", "failed", "cancelled")

ENDED = frozenset({"completed", "failed", "cancelled"})


class Execution:
    """One execution's state; before it has started, `plan` is None and the status `planning`."""

    __slots__ = (
        "agents",
        "alone",
        "attempts",
        "digest",
        "done",
        "id",
        "in_flight",
        "limit",
        "outputs",
        "phase",
        "phase_open",
        "plan",
        "ready",
        "revision",
        "status",
        "task_status",
        "waiting",
        "workflow_id",
    )

    def __init__(self, root: str) -> None:
        self.id = root
        self.status = "planning"
        self.plan: Plan | None = None
        self.workflow_id = ""
        self.revision = 0
        self.digest = ""
        self.limit = 0
        self.task_status = bytearray()
        self.attempts = bytearray()
        self.waiting: list[int] = []
        self.ready: list[tuple[int, int]] = []  # a heap of (-priority, task)
        self.in_flight = 0
        self.alone = False  # a task with `parallel: false` is in flight
        self.done = 0
        self.phase = 0
        self.phase_open: list[int] = []
        self.agents: dict[int, str] = {}
        self.outputs: dict[int, Any] = {}

    @property
    def terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status in ENDED

    def begin(self, found: Blueprint, limit: int) -> None:
        """Every task waits for its dependencies; those without any are ready."""
        plan = found.plan
        self.plan = plan
        self.status = "executing"
        self.workflow_id, self.revision, self.digest = (
            found.workflow_id,
            found.revision,
            found.digest,
        )
        self.limit = limit
        self.task_status = bytearray(len(plan.ids))
        self.attempts = bytearray(len(plan.ids))
        self.waiting = list(plan.in_degree)
        self.ready = [self._rank(task) for task, n in enumerate(self.waiting) if n == 0]
        heapify(self.ready)
        self.phase_open = [0, *plan.phase_sizes]
        self.phase = 1

    def _rank(self, task: int) -> tuple[int, int]:
        assert self.plan is not None
        return (-self.plan.priority[task], task)

    def _task(self, task_id: str) -> int:
        assert self.plan is not None
        return self.plan.index[task_id]

    def scheduled(self, task_id: str, attempt: int) -> None:
        """The task has left the ready ones and waits for an agent."""
        task = self._task(task_id)
        if self.ready and self.ready[0][1] == task:
            heappop(self.ready)
        else:  # chosen before others of its rank, by a later policy
            self.ready.remove(self._rank(task))
            heapify(self.ready)
        self.task_status[task] = SCHEDULED
        self.attempts[task] = attempt
        self.in_flight += 1
        self.alone = self.plan is not None and self.plan.exclusive[task]

    def started(self, task_id: str, agent: str) -> None:
        """An agent holds the task."""
        task = self._task(task_id)
        self.task_status[task] = RUNNING
        self.agents[task] = agent

    def _ended(self, task_id: str, status: int) -> int:
        """The attempt is over; returns the task's number."""
        task = self._task(task_id)
        if self.task_status[task] in (SCHEDULED, RUNNING):
            self.in_flight -= 1
            self.alone = False
        self.task_status[task] = status
        return task

    def completed(self, task_id: str, output: Any) -> None:
        """The task's successors wait for one task less."""
        task = self._ended(task_id, COMPLETED)
        plan = self.plan
        assert plan is not None
        self.done += 1
        self.phase_open[plan.phase[task]] -= 1
        if not plan.successors[task]:
            self.outputs[task] = output
        for successor in plan.successors[task]:
            self.waiting[successor] -= 1
            if self.waiting[successor] == 0:
                heappush(self.ready, self._rank(successor))

    def failed(self, task_id: str, retried: bool) -> None:
        """The attempt failed; a retried task is ready again.

        Who failed stays known until the next attempt has begun: said twice, it counts once.
        """
        task = self._ended(task_id, PENDING if retried else FAILED)
        if retried:
            heappush(self.ready, self._rank(task))

    def cancelled(self, task_id: str) -> None:
        """The task has ended with its execution, held by somebody or not."""
        task = self._task(task_id)
        if self.task_status[task] == SCHEDULED:
            self.agents.pop(task, None)  # whoever failed the attempt before
        self._ended(task_id, CANCELLED)

    def end(self, status: str) -> None:
        """Nothing is scheduled any more."""
        self.status = status
        self.ready.clear()
        self.outputs.clear()

    def dump(self) -> dict[str, Any] | None:
        """The state as JSON-able data; None before the start."""
        if self.plan is None:
            return None
        return {
            "workflow_id": self.workflow_id,
            "revision": self.revision,
            "digest": self.digest,
            "status": self.status,
            "limit": self.limit,
            "phase": self.phase,
            "task_status": self.task_status.hex(),
            "attempts": self.attempts.hex(),
            "agents": {str(task): agent for task, agent in self.agents.items()},
            "outputs": {str(task): output for task, output in self.outputs.items()},
        }

    @classmethod
    def load(cls, root: str, data: Any, found: Blueprint | None) -> Execution:
        """The state that `dump` described; what can be derived from the plan is derived."""
        state = cls(root)
        if data is None or found is None:
            return state
        state.begin(found, data["limit"])
        plan = found.plan
        state.status, state.phase = data["status"], data["phase"]
        state.task_status = bytearray.fromhex(data["task_status"])
        state.attempts = bytearray.fromhex(data["attempts"])
        state.agents = {int(task): agent for task, agent in data["agents"].items()}
        state.outputs = {int(task): output for task, output in data["outputs"].items()}
        for task, status in enumerate(state.task_status):
            if status == COMPLETED:
                state.done += 1
                state.phase_open[plan.phase[task]] -= 1
                for successor in plan.successors[task]:
                    state.waiting[successor] -= 1
            elif status in (SCHEDULED, RUNNING):
                state.in_flight += 1
                state.alone = state.alone or plan.exclusive[task]
        state.ready = [
            state._rank(task)
            for task, status in enumerate(state.task_status)
            if status == PENDING and state.waiting[task] == 0 and not state.terminal
        ]
        heapify(state.ready)
        return state
