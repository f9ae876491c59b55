"""Which tasks were lost with Redis: only what is neither on its way nor answered, seen twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from processors.agents.wire import Assignment, decode_assignment, encode_assignment
from processors.managers.manager import Ask, Recheck, Withdraw
from processors.task_sender import TaskSender
from streams.bus import Bus
from streams.log import Cursor
from streams.partition import commands_key, tasks_key, withdrawn_channel

ANSWERS = commands_key(0)
TASKS = tasks_key("default", "worker")
TASK = Assignment("e", "t", 1, "worker", "default", {}, {}, 60.0, ANSWERS)


class Heads:
    """A log of which only the writer's cursor is looked at."""

    offset = "0-0"

    async def cursors(self, consumer: str) -> list[Cursor]:
        return [Cursor(consumer, 0, stream_offset=self.offset)]


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = Bus(redis_url)
    yield made
    await made.close()


@pytest.fixture
def log() -> Heads:
    return Heads()


@pytest.fixture
def sender(bus: Bus, log: Any) -> TaskSender:
    return TaskSender(log, bus, 1)


async def waiting(bus: Bus) -> list[str]:
    """What waits in the role's stream."""
    return [decode_assignment(raw).message_id async for _, raw in bus.scan(TASKS)]


async def test_a_task_on_its_way_is_not_asked_again(bus: Bus, sender: TaskSender) -> None:
    await sender.send([Ask(TASK)])
    for _ in range(3):
        await sender.send([Recheck(TASK)])
    assert await waiting(bus) == [TASK.message_id]


async def test_a_task_that_is_gone_is_asked_again_at_the_second_look(
    bus: Bus, sender: TaskSender
) -> None:
    """F12."""
    other = replace(TASK, task_id="u")
    await sender.send([Ask(TASK), Ask(other)])
    await bus.redis.delete(TASKS)
    await bus.append({TASKS: [encode_assignment(other)]})
    await sender.send([Recheck(TASK), Recheck(other)])
    assert await waiting(bus) == ["e/u/1"], "its answer may be on its way"
    await sender.send([Recheck(TASK), Recheck(other)])
    assert await waiting(bus) == ["e/u/1", "e/t/1"]
    assert (sender.asked, sender.asked_again) == (2, 1)


async def test_an_answer_that_is_not_committed_yet_is_waited_for(
    bus: Bus, log: Heads, sender: TaskSender
) -> None:
    """Nothing is doubled behind a backlog; and a stream that never rests hides no loss (I15)."""
    [answer] = (await bus.append({ANSWERS: [b"its answer"]}))[ANSWERS]
    for _ in range(3):
        await sender.send([Recheck(TASK)])
    assert await waiting(bus) == []
    log.offset = answer.decode()
    await bus.append({ANSWERS: [b"of others"]})  # always something that is not committed yet
    await sender.send([Recheck(TASK)])
    assert await waiting(bus) == [TASK.message_id]


async def test_a_task_that_was_missed_and_is_back_begins_anew(bus: Bus, sender: TaskSender) -> None:
    await sender.send([Recheck(TASK)])
    await bus.append({TASKS: [encode_assignment(TASK)]})
    await sender.send([Recheck(TASK)])
    await bus.redis.delete(TASKS)
    await sender.send([Recheck(TASK)])
    assert await waiting(bus) == []


async def test_who_has_a_task_is_told_that_it_is_withdrawn(bus: Bus, sender: TaskSender) -> None:
    """F37: by the id that its entry carries; it need not be heard."""
    listener = bus.redis.pubsub()
    await listener.subscribe(withdrawn_channel("default", "worker"))
    assert (await listener.get_message(timeout=5.0) or {})["type"] == "subscribe"
    await sender.send([Withdraw(TASK), Withdraw(replace(TASK, task_id="u"))])
    heard = [(await listener.get_message(timeout=5.0) or {})["data"] for _ in range(2)]
    assert heard == [b"e/t/1", b"e/u/1"]
    assert sender.withdrawn == 2
    await listener.aclose()  # type: ignore[no-untyped-call]
