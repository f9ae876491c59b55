"""An execution that ends early, and whatever may be said while it is undone and later."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aggregates.decider import Blueprint
from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    CompensateTask,
    CompleteCompensation,
    EndCompensation,
    FailCompensation,
    FailTask,
    PauseExecution,
    ProvideInput,
    ResumeExecution,
    RetryCompensation,
    RetryExecution,
    SignalExecution,
    StartTask,
    TimeOutCompensation,
    TimeOutExecution,
    TimeOutTask,
)
from tests.execution_account import AGENTS
from tests.execution_invariants import Invariants
from tests.random_flows import TASKS_MAX, flows

TASKS = st.integers(0, TASKS_MAX)
WHO = st.sampled_from(AGENTS)


class Undone(Invariants, RuleBasedStateMachine):
    """Some tasks complete, then it is cancelled, fails, or its time is over."""

    @initialize(
        found=flows(undoable=True),
        steps=st.integers(1, 2 * TASKS_MAX),
        how=st.sampled_from([CancelExecution, TimeOutExecution, FailTask]),
        paused=st.booleans(),
    )
    def start(self, found: Blueprint, steps: int, how: type[Any], paused: bool) -> None:
        self.begin_with(found, None)
        for _ in range(steps):
            if self.live.done + 1 < len(self.tasks):
                self.drive_on()
        if paused:
            self.say(PauseExecution())
        if how is FailTask and self.open():
            task = self.open()[0]
            self.say(FailTask(task, self.attempt[task], "ann", "no", retryable=False))
        else:
            self.say(CancelExecution("x") if how is FailTask else how("x"))
        assert self.outcome or self.ended

    @rule(fails=st.sampled_from([True, False, False]))
    def undo_something(self, fails: bool) -> None:
        if self.outcome is not None:
            self.undo_on(fails)

    @precondition(lambda self: "scheduled" in self.undo.values())
    @rule(fails=st.booleans(), again=st.booleans(), agent=WHO)
    def end_an_attempt_to_undo(self, fails: bool, again: bool, agent: str) -> None:
        """Also after the execution's end."""
        task = next(task for task, status in self.undo.items() if status == "scheduled")
        attempt = self.undo_attempt[task]
        if fails:
            assert self.say(FailCompensation(task, attempt, agent, "no", again))
        else:
            assert self.say(CompleteCompensation(task, attempt, agent))

    @precondition(lambda self: "parked" in self.undo.values())
    @rule(which=TASKS)
    def try_a_parked_one_again(self, which: int) -> None:
        parked = [task for task, status in self.undo.items() if status == "parked"]
        assert self.say(RetryCompensation(parked[which % len(parked)]))

    @rule(
        kind=st.sampled_from([CompensateTask, RetryCompensation, EndCompensation]),
        task=TASKS,
    )
    def steer(self, kind: type[Any], task: int) -> None:
        self.say(kind() if kind is EndCompensation else kind(f"t{task}"))

    @rule(task=TASKS, old=st.integers(0, 3))
    def time_out(self, task: int, old: int) -> None:
        name = f"t{task}"
        self.say(TimeOutCompensation(name, self.undo_attempt.get(name, 1) - (old == 0)))

    @rule(
        kind=st.sampled_from([CompleteCompensation, FailCompensation, StartTask, TimeOutTask]),
        task=TASKS,
        attempt=st.integers(0, 5),
        agent=WHO,
    )
    def answer_anything(self, kind: type[Any], task: int, attempt: int, agent: str) -> None:
        rest = ("x",) if kind is FailCompensation else ()
        who = "run" if kind is TimeOutTask else agent
        self.say(kind(f"t{task}", attempt, who, *rest))

    @rule(
        command=st.sampled_from(
            [
                CancelExecution("again"),
                TimeOutExecution(),
                CheckExecution(),
                PauseExecution(),
                ResumeExecution(),
                SignalExecution("go"),
                ProvideInput("t0"),
                RetryExecution(),
            ]
        )
    )
    def interfere(self, command: Any) -> None:
        """F41: cancelled twice, paused, resumed, timed out, while it is being undone."""
        self.say(command)

    @rule(which=st.integers(0, 100))
    def repeat(self, which: int) -> None:
        self.say(self.said[which % len(self.said)])


Undone.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestUndone = Undone.TestCase
