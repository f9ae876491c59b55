"""What an execution remembers, in integers and bytes: about 35 bytes a task.

The plan is shared by all executions of one revision; only what changes is kept here, and what is
true of few tasks only in sparse dictionaries. Every change has one method, called by
`execution.evolve` alone; `execution_snapshot` writes the state down.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

from aggregates.decider import Blueprint
from aggregates.definitions.model import RetryPolicy
from aggregates.execution_undoing import Undoing
from aggregates.plan import Plan
from aggregates.room import Room

PENDING, SCHEDULED, RUNNING, COMPLETED, FAILED, CANCELLED, WAITING, TIMED_OUT = range(8)
TASK_STATUSES = (
    "pending",
    "scheduled",
    "running",
    "completed",
    "failed",
    "cancelled",
    "waiting",
    "timed_out",
)

ENDED = frozenset({"completed", "failed", "cancelled"})

OUTPUT_TASKS_MAX = 16
"""An execution's output carries those of its last tasks, up to so many (each is bounded itself)."""


class Execution:
    """One execution's state; before it has started, `plan` is None and the status `planning`.

    `agents` are who holds a task, or held it last; `deliveries` the highest delivery that was heard
    of in the current attempt, where it is not 1; `asked` the tasks whose last attempt ended with a
    request for input; `uncounted` the attempts that the retry policy does not count.
    """

    __slots__ = (
        "agents",
        "alone",
        "asked",
        "attempts",
        "deliveries",
        "digest",
        "done",
        "id",
        "in_flight",
        "input",
        "inputs",
        "limit",
        "outputs",
        "phase",
        "phase_open",
        "plan",
        "policy",
        "ready",
        "revision",
        "room",
        "signals",
        "status",
        "task_status",
        "timeout_seconds",
        "uncounted",
        "undoing",
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
        self.timeout_seconds: float | None = None
        self.policy: RetryPolicy | None = None  # in place of the tasks' own ones
        self.room: Room | None = None
        self.input: Any = None
        self.inputs: dict[str, Any] = {}  # those that a retry has edited, by task
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
        self.deliveries: dict[int, int] = {}
        self.asked: set[int] = set()
        self.uncounted: dict[int, int] = {}
        self.outputs: dict[int, Any] = {}
        self.signals: set[str] = set()
        self.undoing = Undoing()

    @property
    def terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status in ENDED

    def policy_of(self, task: int) -> RetryPolicy:
        """How a task is tried again in this execution."""
        assert self.plan is not None
        return self.policy or self.plan.definition.tasks[task].retry_policy

    def counted(self, task: int, attempt: int) -> int:
        """Which attempt it is in the eyes of the task's retry policy."""
        return attempt - self.uncounted.get(task, 0)

    def begin(self, found: Blueprint, limit: int) -> None:
        """Every task waits for its dependencies and its signal; those without any are ready."""
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
        for tasks in plan.signals.values():
            for task in tasks:
                self.waiting[task] += 1
        self.phase_open = [0, *plan.phase_sizes]
        self.phase = 1
        self.find_ready()

    def find_ready(self) -> None:
        """The tasks that wait for nothing and nobody."""
        waiting = self.waiting
        self.ready = [
            self.rank(task)
            for task, status in enumerate(self.task_status)
            if status == PENDING and waiting[task] == 0
        ]
        heapify(self.ready)

    def rank(self, task: int) -> tuple[int, int]:
        """The task's place among those that are ready: by priority, then as in the file."""
        assert self.plan is not None
        return (-self.plan.priority[task], task)

    def number(self, task_id: str) -> int:
        """A task's place in the plan."""
        assert self.plan is not None
        return self.plan.index[task_id]

    def role_of(self, task: int) -> str:
        """Who is asked to do a task."""
        assert self.plan is not None
        return self.plan.definition.tasks[task].agent_role

    # One attempt --------------------------------------------------------------------------------

    def scheduled(self, task_id: str, attempt: int) -> None:
        """The task has left the ready ones and waits for an agent."""
        task = self.number(task_id)
        if self.ready and self.ready[0][1] == task:
            heappop(self.ready)
        else:  # chosen before others of its rank, by a later policy
            self.ready.remove(self.rank(task))
            heapify(self.ready)
        self.task_status[task] = SCHEDULED
        self.attempts[task] = attempt
        self.in_flight += 1
        if self.room is not None:
            self.room.enter(self.role_of(task))
        self.alone = self.plan is not None and self.plan.exclusive[task]
        if self.deliveries:
            self.deliveries.pop(task, None)

    def started(self, task_id: str, agent: str, delivery: int) -> None:
        """An agent holds the task."""
        task = self.number(task_id)
        self.task_status[task] = RUNNING
        self.agents[task] = agent
        if delivery != 1:
            self.deliveries[task] = delivery
        if self.asked:
            self.asked.discard(task)

    def left(self, task_id: str, status: int) -> int:
        """The attempt is over, and nobody works on it any more; returns the task's number."""
        task = self.number(task_id)
        if self.task_status[task] in (SCHEDULED, RUNNING):
            self.in_flight -= 1
            if self.room is not None:
                self.room.leave(self.role_of(task))
            self.alone = False
        self.task_status[task] = status
        return task

    def completed(self, task_id: str, output: Any) -> None:
        """The task's successors wait for one task less."""
        task = self.left(task_id, COMPLETED)
        plan = self.plan
        assert plan is not None
        self.done += 1
        self.phase_open[plan.phase[task]] -= 1
        if plan.undoing and task in plan.undoing:
            self.undoing.order.append(task)
        if not plan.successors[task] and len(plan.sinks) <= OUTPUT_TASKS_MAX:
            self.outputs[task] = output
        for successor in plan.successors[task]:
            self.freed(successor)

    def freed(self, task: int) -> None:
        """The task waits for one thing less."""
        self.waiting[task] -= 1
        if self.waiting[task] == 0:
            heappush(self.ready, self.rank(task))

    def failed(self, task_id: str, retried: bool) -> None:
        """The attempt failed; a retried task is ready again.

        Who failed stays known until the next attempt has begun: said twice, it counts once.
        """
        task = self.left(task_id, PENDING if retried else FAILED)
        if retried:
            heappush(self.ready, self.rank(task))

    def timed_out(self, task_id: str, retried: bool) -> None:
        """The attempt took too long; whatever its agent says of it comes too late."""
        task = self.left(task_id, PENDING if retried else TIMED_OUT)
        self.agents.pop(task, None)
        self.asked.discard(task)
        if retried:
            heappush(self.ready, self.rank(task))

    def cancelled(self, task_id: str) -> None:
        """The task has ended with its execution, held by somebody or not."""
        task = self.number(task_id)
        if self.task_status[task] in (PENDING, SCHEDULED):
            self.agents.pop(task, None)  # whoever ended the attempt before
        self.asked.discard(task)
        self.left(task_id, CANCELLED)

    # The end ------------------------------------------------------------------------------------

    def undo(self, outcome: str, reason: str, task: str | None, tasks: list[str]) -> None:
        """Nothing is scheduled any more; the execution ends when these tasks are undone."""
        self.status = "executing"
        self.ready.clear()
        self.undoing.begin(outcome, reason, task, [self.number(each) for each in tasks])

    def end(self, status: str) -> None:
        """Nothing is scheduled any more; what a retry would need is kept of a failed execution."""
        self.status = status
        self.ready.clear()
        self.undoing.end()
        if status != "failed":
            self.outputs.clear()
            self.inputs.clear()
            self.input = None
