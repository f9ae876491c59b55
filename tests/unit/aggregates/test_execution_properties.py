"""An execution under whatever may be said to it: the invariants hold after every command."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from aggregates.decider import Blueprint
from aggregates.execution_commands import (
    CancelExecution,
    CheckExecution,
    FailTask,
    PauseExecution,
    ProvideInput,
    RequestInput,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    StartTask,
    TimeOutExecution,
    TimeOutTask,
)
from tests.execution_account import AGENTS
from tests.execution_invariants import Invariants
from tests.execution_talk import ANSWERS
from tests.random_flows import SIGNALS, TASKS_MAX, flows

TASKS = st.integers(0, TASKS_MAX - 1)
WHO = st.sampled_from(AGENTS)
SELDOM = st.integers(0, 9)


class Executions(Invariants, RuleBasedStateMachine):
    """Says whatever comes to mind, and compares the state with the account."""

    @initialize(found=flows(), wanted=st.sampled_from([None] * 4 + [2, 3, 5]))
    def start(self, found: Blueprint, wanted: int | None) -> None:
        self.begin_with(found, wanted)

    # What agents say

    @rule(kind=st.sampled_from(ANSWERS), task=TASKS, agent=WHO, later=st.integers(-1, 2))
    def answer(self, kind: type[Any], task: int, agent: str, later: int) -> None:
        """By whoever, for an earlier delivery, for the same, or for a later one."""
        name = self.some(task)
        rest = ("no",) if kind is FailTask else ()
        delivery = self.delivery.get(name, 1) + later
        self.say(kind(name, self.attempt[name], agent, *rest, delivery=delivery))

    @rule(task=TASKS, agent=WHO, delivery=st.sampled_from([1, 1, 2]))
    def begin(self, task: int, agent: str, delivery: int) -> None:
        name = self.some(task)
        self.say(StartTask(name, self.attempt[name], agent, delivery))

    @precondition(lambda self: "running" in self.status.values())
    @rule(kind=st.sampled_from([StartTask, *ANSWERS]), agent=WHO, by=st.integers(1, 3))
    def take_over(self, kind: type[Any], agent: str, by: int) -> None:
        """The attempt was delivered again, to another agent or to the same one."""
        name = next(task for task, status in self.status.items() if status == "running")
        rest = ("no",) if kind is FailTask else ()
        delivery = self.delivery[name] + by
        assert self.say(kind(name, self.attempt[name], agent, *rest, delivery=delivery))

    @rule(task=TASKS)
    def complete_something_open(self, task: int) -> None:
        """So that long runs come to their end."""
        if self.open():
            self.finish(self.open()[task % len(self.open())])

    @rule(task=TASKS, error=st.sampled_from(["no", "no", "no", "Fatal: so"]), hopeless=SELDOM)
    def fail_something_open(self, task: int, error: str, hopeless: int) -> None:
        if self.open():
            name = self.open()[task % len(self.open())]
            agent, delivery = self.holder.get(name, "ann"), self.delivery.get(name, 1)
            attempt, again = self.attempt[name], hopeless > 0
            self.say(FailTask(name, attempt, agent, error, again, delivery=delivery))

    @rule(task=TASKS)
    def ask_for_input(self, task: int) -> None:
        if self.open():
            name = self.open()[task % len(self.open())]
            agent, delivery = self.holder.get(name, "ann"), self.delivery.get(name, 1)
            self.say(RequestInput(name, self.attempt[name], agent, "?", delivery=delivery))

    @rule(
        kind=st.sampled_from(ANSWERS),
        task=st.integers(0, TASKS_MAX),
        attempt=st.integers(-1, 5),
        agent=WHO,
    )
    def answer_anything(self, kind: type[Any], task: int, attempt: int, agent: str) -> None:
        """For tasks and attempts that may not be there, or not yet, or no more."""
        rest = ("x",) if kind is FailTask else ()
        self.say(kind(f"t{task}", attempt, agent, *rest))

    # What people and process managers say

    @precondition(lambda self: self.said)
    @rule(which=st.integers(0, 100))
    def repeat(self, which: int) -> None:
        self.say(self.said[which % len(self.said)])

    @rule(task=TASKS, kind=st.sampled_from(["run", "run", "run", "queue"]), old=SELDOM)
    def time_out_a_task(self, task: int, kind: str, old: int) -> None:
        name = self.some(task)
        self.say(TimeOutTask(name, self.attempt[name] - (old == 0), kind))

    @rule(task=TASKS)
    def provide_input(self, task: int) -> None:
        self.say(ProvideInput(self.name(task), task))

    @rule(name=st.sampled_from([*SIGNALS, "other", ""]))
    def signal(self, name: str) -> None:
        self.say(SignalExecution(name, name))

    @rule()
    def pause(self) -> None:
        self.say(PauseExecution())

    @rule()
    def resume(self) -> None:
        self.say(ResumeExecution())

    @rule()
    def take_a_breath(self) -> None:
        self.say(PauseExecution())
        self.say(ResumeExecution())

    @rule()
    def check(self) -> None:
        """Nothing is ever overlooked here, nor is there a deadlock."""
        assert self.say(CheckExecution()) == []

    @rule(really=SELDOM, kind=st.sampled_from([CancelExecution, TimeOutExecution]))
    def end(self, really: int, kind: type[Any]) -> None:
        if really == 0:
            self.say(kind("enough"))

    @rule(task=st.none() | TASKS, edited=st.booleans())
    def retry(self, task: int | None, edited: bool) -> None:
        name = None if task is None else self.name(task)
        inputs = {name: "edited"} if name in self.tasks and edited else {}
        if inputs and self.status[name] == "completed":
            inputs = {}
        self.say(RetryExecution(name, inputs))


Executions.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestExecutions = Executions.TestCase
