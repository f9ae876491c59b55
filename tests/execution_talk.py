"""What random tests say to an execution, and how they compare what follows with the account."""

from __future__ import annotations

from typing import Any

import orjson

from aggregates.decider import Blueprint, fold
from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CompensateTask,
    CompleteCompensation,
    CompleteTask,
    EndCompensation,
    FailCompensation,
    FailTask,
    PauseExecution,
    ProvideInput,
    RequestInput,
    ResumeExecution,
    RetryCompensation,
    RetryExecution,
    SignalExecution,
    StartExecution,
    StartTask,
)
from aggregates.execution_state import Execution
from aggregates.problem import Refused
from tests.execution_account import OPEN, Account
from tests.spec import NOW, ROOT

ANSWERS = (StartTask, CompleteTask, FailTask, RequestInput)


class Said(Refused):
    """A refusal that equals another one with the same words."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Said) and (self.code, self.detail) == (other.code, other.detail)

    __hash__ = None  # type: ignore[assignment]


class Talk(Account):
    """Says a command to the live state and to its restored twin, and keeps account."""

    def begin_with(self, found: Blueprint, wanted: int | None) -> None:
        self.keep(found, wanted)
        self.said: list[Any] = []
        self.live = Execution(ROOT)
        self.twin = Execution(ROOT)
        command = StartExecution("w", max_parallel_tasks=wanted, input={"n": 1})
        command._blueprint = found
        assert self.say(command)

    def say(self, command: Any) -> list[Any]:
        """Decide on the live state and on its restored twin, which must agree; then fold."""
        self.said.append(command)
        events = self.decide(self.live, command)
        assert self.decide(self.twin, command) == events
        if isinstance(events, Refused):
            assert not self.legal(command), events
            return []
        before = list(self.happened)
        for event in events:
            self.note(event)
            self.happened.append(event)
        self.live = fold(EXECUTION, ROOT, events, self.live)
        self.twin = self.restored()
        again = self.decide(self.live, command)
        assert isinstance(again, Refused) or again == [], "said twice, it has an effect twice"
        if not isinstance(command, PauseExecution | ResumeExecution | RetryExecution):
            assert again == [], f"{command} was accepted, then refused: {again}"
        self.ordered(events, before)
        return events

    def restored(self) -> Execution:
        """The state as it comes back from a snapshot."""
        stored = orjson.loads(orjson.dumps(EXECUTION.dump(self.live)))
        return EXECUTION.load(ROOT, stored, self.found)

    @staticmethod
    def decide(state: Execution, command: Any) -> Any:
        try:
            return EXECUTION.decide(state, command, NOW)
        except Refused as refusal:
            return Said(refusal.code, refusal.detail)

    def legal(self, command: Any) -> bool:
        """Whether the command had to be accepted."""
        task = getattr(command, "task", None)
        if task is not None and task not in self.tasks:
            return False
        if getattr(command, "delivery", 1) < 1:
            return False
        match command:
            case StartTask() | CompleteTask() | FailTask() | RequestInput():
                current = self.attempt[task] == command.attempt
                return current and self.status[task] in OPEN and self.fits(command)
            case CompleteCompensation() | FailCompensation():
                current = self.undo_attempt.get(task) == command.attempt
                return current and self.undo[task] == "scheduled"
            case PauseExecution():
                return self.ended is None and self.outcome is None
            case ResumeExecution():
                return self.ended is None
            case SignalExecution():
                return self.ended is None and command.name != ""
            case ProvideInput():
                return self.status[task] == "waiting"
            case RetryExecution():
                mine = task is None or self.status[task] in ("failed", "timed_out", "cancelled")
                return self.ended == "ExecutionFailed" and not self.undo and mine
            case CompensateTask():
                return self.outcome is not None and self.next_to_undo() == task
            case EndCompensation():
                return self.outcome is not None and self.next_to_undo() is None
            case RetryCompensation():
                return self.undo.get(task) == "parked"
        return True

    def some(self, which: int) -> str:
        """A task that is open, if there is one."""
        among = self.open() or list(self.tasks)
        return among[which % len(among)]

    # What others would do

    def finish(self, task: str) -> None:
        """Whoever holds the task completes it."""
        agent = self.holder[task] if self.status[task] == "running" else "ann"
        delivery = self.delivery.get(task, 1)
        assert self.say(CompleteTask(task, self.attempt[task], agent, task, delivery=delivery))

    def help_from_outside(self, task: str) -> None:
        """Somebody answers the task's question, or sends its signal."""
        if self.status[task] == "waiting":
            assert self.say(ProvideInput(task, "an answer"))
        else:
            assert self.say(SignalExecution(self.tasks[task].wait_for, {"by": "a person"}))

    def next_to_undo(self) -> str | None:
        """The task whose turn it is; None where all are settled."""
        return next((task for task in self.undo if not self.settled(task)), None)

    def undo_on(self, fails: bool = False) -> None:
        """What the process manager does next, or the agent that it has asked."""
        task = self.next_to_undo()
        if task is None:
            assert self.say(EndCompensation())
        elif self.undo[task] == "open":
            assert self.say(CompensateTask(task))
        elif fails:
            assert self.say(FailCompensation(task, self.undo_attempt[task], "ann", "no"))
        else:
            assert self.say(CompleteCompensation(task, self.undo_attempt[task], "bob"))

    def drive_on(self) -> None:
        """One step towards the end."""
        if self.outcome is not None:
            self.undo_on()
        elif self.paused:
            assert self.say(ResumeExecution())
        elif self.open():
            self.finish(self.open()[0])
        else:
            self.help_from_outside(self.outside()[0])
