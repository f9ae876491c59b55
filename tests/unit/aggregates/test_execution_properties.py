"""An execution under whatever may be said to it: the invariants hold after every command."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from aggregates.decider import Blueprint, fold
from aggregates.execution import EXECUTION
from aggregates.execution_commands import (
    CancelExecution,
    CompleteTask,
    FailTask,
    PauseExecution,
    ResumeExecution,
    StartExecution,
    StartTask,
)
from aggregates.execution_events import ExecutionPaused, ExecutionResumed, TaskFailed, TaskTakenOver
from aggregates.execution_state import PENDING, TASK_STATUSES, Execution
from aggregates.problem import Refused
from tests.execution_account import AGENTS, OPEN, TASKS_MAX, Account, flows
from tests.spec import NOW, ROOT

DELIVERIES = st.sampled_from([1, 1, 1, 2, 3])


class Executions(Account, RuleBasedStateMachine):
    """Says whatever comes to mind, and compares the state with the account."""

    @initialize(found=flows(), wanted=st.sampled_from([None] * 4 + [2, 3, 5]))
    def start(self, found: Blueprint, wanted: int | None) -> None:
        self.keep(found, wanted)
        self.said: list[Any] = []
        self.live = Execution(ROOT)
        self.twin = Execution(ROOT)
        command = StartExecution("w", max_parallel_tasks=wanted)
        command._blueprint = found
        assert self.say(command)

    # What is said

    @rule(task=st.integers(0, TASKS_MAX - 1), agent=st.sampled_from(AGENTS), delivery=DELIVERIES)
    def begin(self, task: int, agent: str, delivery: int) -> None:
        name = self.name(task)
        self.say(StartTask(name, self.attempt[name], agent, delivery))

    @rule(task=st.integers(0, TASKS_MAX - 1), agent=st.sampled_from(AGENTS), delivery=DELIVERIES)
    def complete(self, task: int, agent: str, delivery: int) -> None:
        name = self.name(task)
        self.say(CompleteTask(name, self.attempt[name], agent, {"by": agent}, delivery=delivery))

    @rule(task=st.integers(0, TASKS_MAX - 1))
    def complete_something_open(self, task: int) -> None:
        """So that long runs come to their end."""
        if self.open():
            self.finish(self.open()[task % len(self.open())])

    @rule(
        task=st.integers(0, TASKS_MAX - 1),
        agent=st.sampled_from(AGENTS),
        error=st.sampled_from(["no"] * 9 + ["Fatal: so"]),
        retryable=st.sampled_from([True] * 9 + [False]),
        delivery=DELIVERIES,
    )
    def fail(self, task: int, agent: str, error: str, retryable: bool, delivery: int) -> None:
        name = self.name(task)
        command = FailTask(name, self.attempt[name], agent, error, retryable, delivery=delivery)
        self.say(command)

    @rule(
        kind=st.sampled_from([StartTask, CompleteTask, FailTask]),
        task=st.integers(0, TASKS_MAX),
        attempt=st.integers(-1, 4),
        agent=st.sampled_from(AGENTS),
    )
    def answer_anything(self, kind: type[Any], task: int, attempt: int, agent: str) -> None:
        """For tasks and attempts that may not be there, or not yet, or no more."""
        rest = ("x",) if kind is FailTask else ()
        self.say(kind(f"t{task}", attempt, agent, *rest))

    @precondition(lambda self: self.said)
    @rule(which=st.integers(0, 100))
    def repeat(self, which: int) -> None:
        self.say(self.said[which % len(self.said)])

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

    @rule(really=st.integers(0, 9))
    def cancel(self, really: int) -> None:
        if really == 0:
            self.say(CancelExecution("enough"))

    # What follows

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
        self.twin = EXECUTION.load(ROOT, EXECUTION.dump(self.live), self.found)
        again = self.decide(self.live, command)
        assert isinstance(again, Refused) or again == [], "said twice, it has an effect twice"
        if not isinstance(command, PauseExecution | ResumeExecution):
            assert again == [], f"{command} was accepted, then refused: {again}"
        self.ordered(events, before)
        return events

    @staticmethod
    def decide(state: Execution, command: Any) -> Any:
        try:
            return EXECUTION.decide(state, command, NOW)
        except Refused as refusal:
            return Said(refusal.code, refusal.detail)

    def legal(self, command: Any) -> bool:
        """Whether the command had to be accepted."""
        match command:
            case StartTask() | CompleteTask() | FailTask():
                status = self.status.get(command.task)
                current = self.attempt.get(command.task) == command.attempt
                return current and status in OPEN and self.fits(command)
            case PauseExecution() | ResumeExecution():
                return self.ended is None
        return True

    def finish(self, task: str) -> None:
        agent = self.holder[task] if self.status[task] == "running" else "ann"
        delivery = self.delivery.get(task, 1)
        assert self.say(CompleteTask(task, self.attempt[task], agent, task, delivery=delivery))

    # What holds at every moment

    @invariant()
    def the_state_is_the_fold_of_all_events(self) -> None:
        """I13."""
        folded = fold(EXECUTION, ROOT, self.happened)
        restored = EXECUTION.load(ROOT, EXECUTION.dump(self.live), self.found)
        for name in Execution.__slots__:
            one, two, three = (getattr(s, name) for s in (self.live, folded, restored))
            if name == "ready":
                one, two, three = sorted(one), sorted(two), sorted(three)
            assert one == two == three, name

    @invariant()
    def the_state_agrees_with_our_account(self) -> None:
        known = dict(zip(self.tasks, self.live.task_status, strict=True))
        assert {task: TASK_STATUSES[n] for task, n in known.items()} == self.status
        assert self.live.in_flight == len(self.open())
        assert self.live.terminal == (self.ended is not None)
        assert self.live.done == list(self.status.values()).count("completed")

    @invariant()
    def no_more_runs_than_may(self) -> None:
        running = self.open()
        assert len(running) <= self.limit
        if any(self.found.plan.exclusive[self.found.plan.index[task]] for task in running):
            assert len(running) == 1, "it must run alone"

    @invariant()
    def an_end_leaves_nothing_open(self) -> None:
        """I8: every task is terminal, or was never scheduled."""
        if self.ended is not None:
            assert not self.open()
            assert all(self.attempt[task] == 0 for task, s in self.status.items() if s == "pending")

    @invariant()
    def there_is_always_a_way_on(self) -> None:
        """R33, I15: no deadlock."""
        if self.ended is None and not self.paused:
            assert self.open()

    @invariant()
    def phases_come_once_and_in_order(self) -> None:
        assert self.phases == list(range(1, len(self.phases) + 1))
        phase = dict(zip(self.tasks, self.found.plan.phase, strict=True))
        unfinished = [phase[task] for task, s in self.status.items() if s != "completed"]
        if self.ended is None:
            assert self.phases[-1] == min(unfinished)

    def teardown(self) -> None:
        """Driving on with completions always ends it."""
        if not hasattr(self, "found"):
            return
        if self.paused and self.ended is None:
            self.say(ResumeExecution())
        for _ in range(len(self.tasks) + 1):
            if self.ended is not None:
                break
            self.finish(self.open()[0])
            self.no_more_runs_than_may()
            self.there_is_always_a_way_on()
        assert self.ended is not None
        if self.ended == "ExecutionCompleted":
            failures = sum(isinstance(event, TaskFailed) for event in self.happened)
            others = sum(
                isinstance(event, ExecutionPaused | ExecutionResumed | TaskTakenOver)
                for event in self.happened
            )
            plan = self.found.plan
            whole = 1 + plan.phases + 3 * len(plan.ids) + 1
            assert len(self.happened) == whole + 3 * failures + others
            assert self.phases == list(range(1, plan.phases + 1))
            assert PENDING not in self.live.task_status


class Said(Refused):
    """A refusal that equals another one with the same words."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Said) and (self.code, self.detail) == (other.code, other.detail)

    __hash__ = None  # type: ignore[assignment]


Executions.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestExecutions = Executions.TestCase
