"""Simulated agents misbehave as often as they are told, and alike for the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from processors.agents import Assignment, Behaviour, NeedInput, TaskError, simulated_agents
from streams.codec import decode_command
from streams.message import Command

TASK = Assignment("e", "t", 1, "r", "default", {}, {}, 30.0, "commands:{7}")
UNDO = replace(TASK, kind="compensation", action="refund")


class Sent:
    """A bus that keeps what is sent."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    async def append(self, messages: Mapping[str, Sequence[bytes]]) -> None:
        assert list(messages) == ["commands:{7}"]
        self.commands += [decode_command(raw) for some in messages.values() for raw in some]


def handler(bus: Any = None, **shares: Any) -> Callable[[Assignment], Any]:
    """The handler of the only agent, `simulated-r-1`."""
    (agent,) = simulated_agents(["r"], factor=0.0, behaviour=Behaviour(**shares), bus=bus)
    return agent.handler


def attempts(like: Assignment, count: int = 1_000) -> list[Assignment]:
    return [replace(like, task_id=str(number)) for number in range(count)]


def failed(do: Callable[[Assignment], Any], like: Assignment = TASK) -> list[bool]:
    """Which attempts of many tasks fail."""
    told = []
    for attempt in attempts(like):
        try:
            do(attempt)
            told.append(False)
        except TaskError:
            told.append(True)
    return told


def test_the_same_seed_fails_the_same_attempts_and_no_others() -> None:
    assert failed(handler(seed=1, failures=0.3)) == failed(handler(seed=1, failures=0.3))
    assert failed(handler(seed=1, failures=0.3)) != failed(handler(seed=2, failures=0.3))
    assert 250 < sum(failed(handler(failures=0.3))) < 350
    assert not any(failed(handler(undo_failures=1.0)))


def test_undoing_has_its_own_share() -> None:
    assert handler()(UNDO) == {"undone": "t"}
    assert not any(failed(handler(failures=1.0), UNDO))
    assert 250 < sum(failed(handler(undo_failures=0.3), UNDO)) < 350


def test_the_next_attempt_of_a_task_is_drawn_anew() -> None:
    do = handler(failures=0.5)
    second = [replace(one, attempt=2) for one in attempts(TASK)]
    first = failed(do)

    assert first != [_fails(do, one) for one in second]


def _fails(do: Callable[[Assignment], Any], one: Assignment) -> bool:
    try:
        do(one)
    except TaskError:
        return True
    return False


async def test_slow_and_hanging_attempts_take_their_time() -> None:
    slow = handler(slow=0.5, slow_s=0.001)
    results = [slow(one) for one in attempts(TASK, 100)]
    waits = [one for one in results if hasattr(one, "__await__")]
    assert 25 < len(waits) < 75
    assert {"task": "0"}.keys() == (await asyncio.gather(*waits))[0].keys()

    hanging = asyncio.ensure_future(handler(hanging=1.0)(TASK))
    _, pending = await asyncio.wait([hanging], timeout=0.02)
    assert pending
    hanging.cancel()


async def test_answers_come_twice_and_late() -> None:
    """F35: beside the host's own answer, in the name of the agent, for its first delivery."""
    bus, before = Sent(), asyncio.all_tasks()
    do = handler(bus, duplicates=0.5, late=0.5, late_s=0.001)
    for one in attempts(replace(TASK, delivery=256), 100):
        do(one)
    await asyncio.gather(*(asyncio.all_tasks() - before))
    twice = [c for c in bus.commands if c.type == "CompleteTask"]
    late = [c for c in bus.commands if c.type == "FailTask"]

    assert 25 < len(twice) < 75
    assert 25 < len(late) < 75
    assert {c.data["agent"] for c in bus.commands} == {"simulated-r-1"}
    assert {c.data["delivery"] for c in bus.commands} == {257}
    assert {c.data["task"] for c in twice} != {c.data["task"] for c in late}


def test_who_answers_beside_the_host_needs_a_way_to() -> None:
    with pytest.raises(ValueError, match="need a bus"):
        handler(late=0.1)


def test_a_task_that_asks_is_asked_once() -> None:
    asks = replace(TASK, metadata={"ask": "May I?"})
    asked = handler()(asks)

    assert isinstance(asked, NeedInput)
    assert asked.prompt == "May I?"
    assert handler()(replace(asks, answer="yes")) == {"task": "t"}
