"""Who does not answer in time is not waited for: on real servers, with commands that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from processors import process_manager
from processors.agents import Assignment, answers, decode_assignment
from processors.client import Client
from processors.managers import deadlines, outstanding
from processors.settings import Addresses
from streams.bus import Bus
from streams.codec import decode_command
from streams.partition import commands_key, partition_of, tasks_key
from tests.system.engine import definition, engine, process, until
from tests.system.stories import happened, kinds, started, withdrawn

ROLE = "worker"


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = Bus(redis_url)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds of every day are a fraction of a second here."""
    monkeypatch.setattr(deadlines, "RUN_GRACE_S", 0.1)
    monkeypatch.setattr(outstanding, "RESEND_S", 0.3)
    monkeypatch.setattr(process_manager, "TICK_S", 0.05)


class ByHand:
    """An agent that does exactly what a test says."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._last = "0-0"

    async def take(self) -> Assignment:
        """The next task of the role."""
        key = tasks_key("default", ROLE)

        async def entry() -> Any:
            return (await self.bus.read({key: self._last}, 1, 50)).get(key)

        [(self._last, raw)] = await until(entry, "a task")
        return decode_assignment(raw)

    async def say(self, assignment: Assignment, said: bytes | None) -> None:
        """Send an answer."""
        assert said is not None
        await self.bus.append({assignment.reply_to: [said]})


def one_task(**more: Any) -> dict[str, Any]:
    document = definition(1)
    document["tasks"][0] |= {"retry_policy": {"initial_backoff_seconds": 0.01}} | more
    return document


async def test_an_agent_that_hangs_is_timed_out_and_the_task_is_tried_again(
    addresses: Addresses, bus: Bus
) -> None:
    """F37, R30, R33: what it says later is refused and recorded (F35)."""
    agent = ByHand(bus)
    async with engine(addresses) as on:
        root = await started(on.client, one_task(timeout_seconds=0.2))
        first = await agent.take()
        await agent.say(first, answers.started(first, "hanging"))
        second = await agent.take()
        await agent.say(second, answers.completed(second, "quick", 2, "2026-01-02T03:04:05Z"))
        await happened(on.pool, root, "ExecutionCompleted")
        await agent.say(first, answers.completed(first, "hanging", 1, "2026-01-02T03:04:05Z"))
        refused = await happened(on.pool, root, "CommandRejected")
        late = await happened(on.pool, root, "TaskTimedOut")
        assert (late["agent"], late["kind"], late["retried"]) == ("hanging", "run", True)
        assert (first.attempt, second.attempt) == (1, 2)
        assert refused["code"] in ("LATE_ANSWER", "EXECUTION_ENDED")
        done = await happened(on.pool, root, "TaskCompleted")
        assert (done["attempt"], done["output"]) == (2, 2)
        await withdrawn(on, 1)


async def test_a_task_that_nobody_takes_fails_with_the_reason(addresses: Addresses) -> None:
    """F38: there is no agent of its role."""
    document = one_task() | {"coordination": {"queue_timeout_seconds": 0.3}}
    async with engine(addresses) as on:
        root = await started(on.client, document)
        end = await happened(on.pool, root, "ExecutionFailed")
        assert "No agent has taken it" in end["reason"]
        late = await happened(on.pool, root, "TaskTimedOut")
        assert (late["agent"], late["kind"], late["retried"]) == (None, "queue", False)
        await withdrawn(on, 1)


async def test_an_execution_ends_when_its_own_time_is_over(addresses: Addresses) -> None:
    """R11."""
    async with engine(addresses) as on:
        root = await started(on.client, definition(2), timeout_seconds=0.3)
        end = await happened(on.pool, root, "ExecutionFailed")
        assert end["reason"].startswith("TIMED_OUT")
        assert (await kinds(on.pool, root))[-2:] == ["TaskCancelled", "ExecutionFailed"]


async def test_a_time_out_that_is_lost_with_redis_is_said_again(
    addresses: Addresses, bus: Bus
) -> None:
    """F12, F16: the processor was frozen, so nothing had read the command before it was lost."""
    document = one_task() | {"coordination": {"queue_timeout_seconds": 0.3}}
    with process(addresses, roles=("commands",), lease_s=60.0) as processor:
        await asyncio.to_thread(processor.ready)
        async with engine(addresses, ["managers"]) as on:
            root = await started(on.client, document)
            processor.stop()
            key = commands_key(partition_of(root, 16))

            async def said() -> set[str]:
                entries = [decode_command(raw) async for _, raw in bus.scan(key)]
                return {one.id for one in entries if one.type == "TimeOutTask"}

            lost = await until(said, "the command")
            await bus.redis.flushdb()
            again = await until(said, "the command once more")
            assert again == lost, "the id is the same"
            assert "TaskTimedOut" not in await kinds(on.pool, root), "void"
            processor.resume()
            await happened(on.pool, root, "ExecutionFailed")
            assert (await kinds(on.pool, root)).count("TaskTimedOut") == 1


async def test_a_deadline_outlives_the_worker_that_set_it(addresses: Addresses) -> None:
    """F10: it goes on with the seconds that were left when the worker stopped."""
    document = one_task() | {"coordination": {"queue_timeout_seconds": 2.0}}
    async with engine(addresses) as on:
        root = await started(on.client, document)
        await happened(on.pool, root, "TaskScheduled")

        async def seen() -> bool:
            return any(p.states[1].runs.get(root) for p in on.managers.parts.values())

        await until(seen, "the manager")
    async with engine(addresses) as on:
        assert "TaskTimedOut" not in await kinds(on.pool, root), "void"
        part = on.managers.parts[partition_of(root, 16)]
        assert part.begun[1] == part.position, "from its snapshot"
        end = await happened(on.pool, root, "ExecutionFailed")
        assert "No agent has taken it" in end["reason"]


async def test_a_deadline_outlives_a_worker_that_is_killed(addresses: Addresses) -> None:
    """F10, F11: whoever comes next begins its time again, where no snapshot says what was left."""
    document = one_task() | {"coordination": {"queue_timeout_seconds": 1.0}}
    roles = ("commands", "managers")
    async with Client(addresses, actor="test") as client:
        with process(addresses, roles=roles, lease_s=0.6) as old:
            await asyncio.to_thread(old.ready)
            root = await started(client, document)
            await happened(client.pool, root, "TaskScheduled")
            old.kill()
        assert "TaskTimedOut" not in await kinds(client.pool, root), "void"
        async with engine(addresses, roles, lease_s=0.6):
            end = await happened(client.pool, root, "ExecutionFailed")
            assert "No agent has taken it" in end["reason"]
            assert (await kinds(client.pool, root)).count("TaskTimedOut") == 1
