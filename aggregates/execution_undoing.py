"""What an execution remembers of undoing its tasks; empty, and cheap, until that begins."""

from __future__ import annotations

from dataclasses import dataclass, field

OPEN, SCHEDULED, UNDONE, PARKED = range(4)


@dataclass(slots=True)
class Undo:
    """The undoing of one task.

    `uncounted` attempts were made before a person had it tried again; `agent` has ended the attempt
    before the current one, or the last. Parked once, it holds up the execution's end no more.
    """

    status: int = OPEN
    attempt: int = 0
    uncounted: int = 0
    agent: str | None = None
    parked: bool = False

    @property
    def settled(self) -> bool:
        """Whether others need not wait for it."""
        return self.parked or self.status == UNDONE


@dataclass(slots=True)
class Undoing:
    """Which tasks can be undone, how far that is, and how the execution ends then.

    `order` holds the completed tasks that can be undone, in the order of their completion. `tasks`
    are those that are to be undone, the first one first. `outcome`, `reason` and `task` are those
    of the event that ends the execution; the outcome is empty unless that is still to come.
    """

    order: list[int] = field(default_factory=list)
    tasks: dict[int, Undo] = field(default_factory=dict)
    outcome: str = ""
    reason: str = ""
    task: str | None = None

    def begin(self, outcome: str, reason: str, task: str | None, tasks: list[int]) -> None:
        """The execution ends when these have been undone, or parked."""
        self.outcome, self.reason, self.task = outcome, reason, task
        self.tasks = {number: Undo() for number in tasks}

    def scheduled(self, task: int, attempt: int) -> None:
        """An agent is asked to undo the task."""
        undo = self.tasks.setdefault(task, Undo())
        if undo.status == PARKED:
            undo.uncounted, undo.agent = undo.attempt, None
        undo.status, undo.attempt = SCHEDULED, attempt

    def undone(self, task: int, agent: str) -> None:
        """The task is undone."""
        undo = self.tasks[task]
        undo.status, undo.agent = UNDONE, agent

    def failed(self, task: int, agent: str | None) -> None:
        """An attempt failed; what follows says whether there will be another."""
        undo = self.tasks[task]
        undo.status, undo.agent = OPEN, agent

    def park(self, task: int) -> None:
        """Only a person can go on with it."""
        undo = self.tasks[task]
        undo.status, undo.parked = PARKED, True

    def end(self) -> None:
        """The execution has ended; whatever is still under way is left to a person."""
        self.outcome = self.reason = ""
        self.task = None
        for undo in self.tasks.values():
            if undo.status != UNDONE:
                undo.status, undo.parked = PARKED, True
