"""What holds at every moment of an execution, and that it always ends."""

from __future__ import annotations

from hypothesis.stateful import invariant

from aggregates.decider import fold
from aggregates.execution import EXECUTION
from aggregates.execution_events import TaskCompleted
from aggregates.execution_state import TASK_STATUSES, Execution
from tests.execution_talk import Talk
from tests.spec import ROOT


class Invariants(Talk):
    """Compares the state with the account after every command, and drives it on to its end."""

    @invariant()
    def the_state_is_the_fold_of_all_events(self) -> None:
        """I13."""
        folded = fold(EXECUTION, ROOT, self.happened)
        restored = self.restored()
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
        assert self.live.undoing.outcome == (self.outcome or "")

    @invariant()
    def no_more_runs_than_may(self) -> None:
        running = self.open()
        assert len(running) <= self.limit
        if any(self.found.plan.exclusive[self.found.plan.index[task]] for task in running):
            assert len(running) == 1, "it must run alone"

    @invariant()
    def an_end_leaves_nothing_open(self) -> None:
        """I8: every task is terminal, or was never scheduled."""
        if self.ended is not None or self.outcome is not None:
            assert not {"scheduled", "running", "waiting"} & set(self.status.values())
            assert all(self.attempt[task] == 0 for task, s in self.status.items() if s == "pending")

    @invariant()
    def there_is_always_a_way_on(self) -> None:
        """R33, I15: no deadlock."""
        if self.ended is None and not self.paused and self.outcome is None:
            assert self.open() or self.outside()

    @invariant()
    def phases_come_once_and_in_order(self) -> None:
        assert self.phases == list(range(1, len(self.phases) + 1))
        phase = dict(zip(self.tasks, self.found.plan.phase, strict=True))
        unfinished = [phase[task] for task, s in self.status.items() if s != "completed"]
        if self.ended is None:
            assert self.phases[-1] == min(unfinished)

    def teardown(self) -> None:
        """Driving on always ends it."""
        if not hasattr(self, "found"):
            return
        for _ in range(4 * len(self.tasks) + 4):
            if self.ended is not None:
                break
            self.drive_on()
            self.no_more_runs_than_may()
            self.there_is_always_a_way_on()
        assert self.ended is not None
        if self.ended == "ExecutionCompleted":
            done = [event.task for event in self.happened if isinstance(event, TaskCompleted)]
            assert sorted(done) == sorted(self.tasks), "I7"
            assert self.phases == list(range(1, self.found.plan.phases + 1))
