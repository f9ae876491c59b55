"""Compensation: one after the other, in the order given, each until it is undone or parked."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    CompensationStarted,
    ExecutionCancelled,
    ExecutionFailed,
    TaskCompensated,
)
from processors.managers.compensation import COMPENSATION
from processors.managers.manager import Send
from processors.managers.outstanding import RESEND_S
from streams.message import Command, Event
from tests.spec import ROOT, Reacting, facts, reacting, rejection

STARTED = CompensationStarted("failed", "no", "d", ["c", "b", "a"])


def said(kind: str, cause: int, root: str = ROOT, **data: Any) -> Send:
    """A command of the saga that the event at `cause` made necessary."""
    name, event = f"compensation:0:{cause}", f"0-{cause}"
    actor = "compensation"
    return Send(Command(name, kind, "execution", root, data, actor=actor, causation=event))


def undo(task: str, cause: int) -> Send:
    return said("CompensateTask", cause, task=task)


def scheduled(task: str, attempt: int = 1) -> CompensationScheduled:
    return CompensationScheduled(task, attempt, "worker", "refund")


def undone(task: str, attempt: int = 1) -> TaskCompensated:
    return TaskCompensated(task, attempt, "ann")


def parked(task: str) -> CompensationParked:
    return CompensationParked(task, 3, "no")


def saga(*happened: Any) -> Reacting:
    """The saga after a compensation has started and then this has happened."""
    return reacting(COMPENSATION).given(*facts([STARTED, *happened]))


def test_it_begins_with_the_first_that_is_named():
    """R31, I9: that is what completed last."""
    reacting(COMPENSATION).when(*facts([STARTED])).then(undo("c", 1))


def test_the_next_one_is_undone_when_the_one_before_is():
    """I9."""
    saga(scheduled("c")).when(*facts([undone("c")], after=2)).then(undo("b", 3))
    first_two = (scheduled("c"), undone("c"), scheduled("b"))
    saga(*first_two).when(*facts([undone("b")], after=4)).then(undo("a", 5))


def test_what_cannot_be_undone_holds_up_nobody():
    """R31."""
    saga(scheduled("c")).when(*facts([parked("c")], after=2)).then(undo("b", 3))


def test_a_failed_attempt_is_not_its_business():
    failed = CompensationFailed("c", 1, "ann", "no", True)
    saga(scheduled("c")).when(*facts([failed, scheduled("c", 2)])).then_nothing()
    both = (scheduled("c"), failed, scheduled("c", 2))
    saga(*both).when(*facts([undone("c", 2)], after=4)).then(undo("b", 5))


ALL = (scheduled("c"), undone("c"), scheduled("b"), parked("b"), scheduled("a"))


def test_when_none_is_left_the_execution_ends_and_is_forgotten():
    """I8, I16."""
    last = saga(*ALL).when(*facts([undone("a")], after=6)).then(said("EndCompensation", 7))
    for end in (ExecutionFailed("no", "d", ["c", "a"], ["b"]), ExecutionCancelled("no")):
        over = saga(*ALL, undone("a")).given(*facts([end], after=7))
        assert COMPENSATION.dump(over.state, 0.0) == {"undoing": {}, "outstanding": []}
        assert not COMPENSATION.waiting(over.state)
        over.at(10_000.0).then_nothing()
    assert COMPENSATION.waiting(last.state)


def test_what_it_said_is_said_again_until_it_is_heard_of():
    """F12: also after a restart, F7: with the same id."""
    saga().at(RESEND_S).then(undo("c", 1))
    saga().restored(50.0).at(50.0).then(undo("c", 1))
    saga(scheduled("c")).at(RESEND_S).then_nothing()
    end = said("EndCompensation", 7)
    last = saga(*ALL, undone("a")).at(RESEND_S).then(end)
    last.restored(50.0).at(50.0).then(end)


def test_who_sees_an_event_again_says_nothing_new():
    saga().when(*facts([STARTED])).then_nothing()
    going_on = saga(scheduled("c"), undone("c"))
    going_on.when(*facts([undone("c")], after=3)).then_nothing()
    going_on.when(*facts([parked("c")], after=3)).then_nothing()
    reacting(COMPENSATION).when(*facts([scheduled("c"), undone("c"), parked("c")])).then_nothing()


def test_a_parked_one_that_a_person_has_tried_again_is_waited_for():
    """R31: the end says what was undone, so it comes after it."""
    again = saga(*ALL, scheduled("b", 4))
    again.when(*facts([undone("a")], after=7)).then_nothing()
    again.when(*facts([undone("b", 4)], after=8)).then(said("EndCompensation", 9))


def test_what_is_refused_is_passed_over():
    """I15: an execution must end, whatever its aggregate thinks of one of its tasks."""
    saga().when(rejection("compensation:0:1", after=1)).then(undo("b", 2))
    saga().when(rejection("somebody else's", after=1)).then_nothing()
    refused = saga(*ALL, undone("a")).when(rejection("compensation:0:7", after=7))
    refused.then_nothing()
    refused.at(10_000.0).then_nothing()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.sampled_from(["undone", "parked", "failed"]), max_size=20),
    st.lists(st.sampled_from(["lost", "heard", "twice"]), min_size=1, max_size=20),
    st.sets(st.integers(0, 60)),
)
def test_every_compensation_comes_to_its_end_in_order(
    tasks: int, fates: list[str], wires: list[str], restarts: set[int]
) -> None:
    """R31, I9, F7, F12, F40: with commands lost or doubled and restarts at any moment."""
    order = [f"t{n}" for n in range(tasks)][::-1]
    log: list[Event] = []
    live, now = reacting(COMPENSATION), 0.0
    execution = Model(order, iter(fates))

    def happen(*events: Any) -> list[Any]:
        effects = []
        for event in facts(events, after=len(log)) if events else []:
            log.append(event)
            effects += live.when(event, at=now).effects
        return effects

    sent = happen(CompensationStarted("failed", "no", None, order))
    for step in range(1_000):
        if execution.ended:
            break
        if step in restarts:
            assert dumped(live) == dumped(reacting(COMPENSATION).given(*log))
            live = live.restored(now)
        wire = wires[step % len(wires)] if step < 100 else "heard"
        arriving, sent = sent * {"lost": 0, "heard": 1, "twice": 2}[wire], []
        for effect in arriving:
            sent += happen(*execution.decide(effect.command))
        sent += happen(*execution.work())
        now += RESEND_S
        sent += live.at(now).effects
    assert execution.ended, "stuck"
    assert execution.order == order
    assert dumped(live) == {"undoing": {}, "outstanding": []}


class Model:
    """What the aggregate and the agents do, in a few lines."""

    def __init__(self, order: list[str], fates: Any) -> None:
        self.left, self.fates = list(order), fates
        self.order: list[str] = []
        self.current: str | None = None
        self.attempt = 0
        self.ended = False

    def decide(self, command: Command) -> list[Any]:
        """Undo what is said, once; end once, when nothing is left."""
        if command.type == "EndCompensation":
            assert not self.left
            assert self.current is None
            ended, self.ended = self.ended, True
            return [] if ended else [ExecutionFailed("no", None, self.order, [])]
        task = command.data["task"]
        if task not in self.left or self.current is not None:
            assert task == self.current or task in self.order, "out of turn"
            return []
        self.left.remove(task)
        self.order.append(task)
        self.current, self.attempt = task, 1
        return [scheduled(task)]

    def work(self) -> list[Any]:
        """An agent answers."""
        if (task := self.current) is None:
            return []
        match next(self.fates, "undone"):
            case "failed":
                self.attempt += 1
                failed = CompensationFailed(task, self.attempt - 1, "ann", "no", True)
                return [failed, scheduled(task, self.attempt)]
            case "parked":
                self.current = None
                return [parked(task)]
        self.current = None
        return [undone(task, self.attempt)]


def dumped(live: Reacting) -> Any:
    return orjson.loads(orjson.dumps(COMPENSATION.dump(live.state, live.now)))
