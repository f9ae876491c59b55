"""The client: one outcome a command, which is sent again until it comes; nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from processors import client as module
from processors.client import Client, NoAnswer, Rejected
from processors.commands import pause_execution, start_execution
from processors.replies import encode_outcome
from processors.settings import Addresses
from streams.bus import Bus, BusFull
from streams.codec import decode_command
from streams.message import Command, Outcome
from streams.partition import commands_key, partition_of

PARTITIONS = 16

Answer = Callable[[Command, int], list[Outcome]]
"""What a processor answers to a command that it reads for the n-th time."""


class Processor:
    """Reads all command streams and answers as it is told; remembers what it read."""

    def __init__(self, bus: Bus, answer: Answer) -> None:
        self.read: Counter[str] = Counter()
        self._bus, self._answer = bus, answer

    async def run(self) -> None:
        after = {commands_key(p): "0-0" for p in range(PARTITIONS)}
        while True:
            streams = await self._bus.read(after, 1_000, block_ms=50)
            for key, entries in streams.items():
                for entry, raw in entries:
                    after[key] = entry
                    command = decode_command(raw)
                    assert key == commands_key(partition_of(command.root, PARTITIONS))
                    self.read[command.id] += 1
                    for outcome in self._answer(command, self.read[command.id]):
                        assert command.reply_to is not None
                        await self._bus.append({command.reply_to: [encode_outcome(outcome)]})


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    bus = Bus(redis_url)
    yield bus
    await bus.close()


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


def accepted(command: Command, times: int = 1) -> list[Outcome]:
    return [Outcome(command.id, partition_of(command.root, PARTITIONS), 1, 3)]


async def answering(bus: Bus, answer: Answer) -> tuple[Processor, asyncio.Task[None]]:
    processor = Processor(bus, answer)
    return processor, asyncio.create_task(processor.run())


async def test_many_calls_at_once_get_each_its_own_outcome(bus: Bus, addresses: Addresses) -> None:
    processor, task = await answering(bus, accepted)
    commands = [start_execution("w") for _ in range(300)]
    async with Client(addresses) as client:
        outcomes = await asyncio.gather(*(client.call(command) for command in commands))
        assert await bus.redis.keys("replies:*")
    task.cancel()
    assert [outcome.command_id for outcome in outcomes] == [command.id for command in commands]
    assert processor.read == Counter(command.id for command in commands)
    assert await bus.redis.keys("replies:*") == []


async def test_a_command_without_an_answer_is_sent_again(
    bus: Bus, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESEND_S", 0.1)

    def third_time(command: Command, times: int) -> list[Outcome]:
        # Twice over: a late answer to an earlier sending comes after the call has ended.
        return accepted(command) * 2 if times == 3 else []

    processor, task = await answering(bus, third_time)
    async with Client(addresses) as client:
        outcome = await client.call(command := pause_execution("x"))
        assert (outcome.first, outcome.last) == (1, 3)
        processor.read.clear()
        with pytest.raises(NoAnswer, match="PauseExecution execution/y"):
            await client.call(pause_execution("y"), timeout_s=0.15)
    task.cancel()
    assert processor.read[command.id] == 0


async def test_a_lost_reply_stream_is_survived(
    bus: Bus, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESEND_S", 0.2)
    _, task = await answering(bus, accepted)
    async with Client(addresses) as client:
        await client.call(pause_execution("x"))
        await bus.redis.flushdb()
        task.cancel()  # a processor notices a new incarnation; this one is simply another
        _, task = await answering(bus, accepted)
        await client.call(pause_execution("x"))
    task.cancel()


async def test_a_refusal_is_raised_with_its_problem(bus: Bus, addresses: Addresses) -> None:
    problem = {"code": "UNKNOWN_EXECUTION", "detail": "There is no execution x."}

    def refuse(command: Command, times: int) -> list[Outcome]:
        return [Outcome(command.id, 0, 1, 1, problem)]

    _, task = await answering(bus, refuse)
    async with Client(addresses) as client:
        with pytest.raises(Rejected, match="There is no execution x") as refused:
            await client.call(pause_execution("x"))
    task.cancel()
    assert refused.value.problem == problem


async def test_what_is_too_large_is_not_sent(bus: Bus, addresses: Addresses) -> None:
    async with Client(addresses) as client:
        with pytest.raises(Rejected, match="at most 12,582,912 may be"):
            await client.call(start_execution("w", input="x" * 13_000_000))
    assert await bus.redis.keys("commands*") == []


async def test_calls_that_wait_are_bounded(
    bus: Bus, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over the bound is refused before it is sent, and leaves room for the others."""
    monkeypatch.setattr(module, "CALLS_MAX", 2)
    async with Client(addresses) as client:
        waiting = [asyncio.create_task(client.call(pause_execution(name))) for name in "ab"]
        while len(client._waiting) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        over = pause_execution("c")
        with pytest.raises(BusFull, match="2 calls"):
            await client.call(over)
        processor, task = await answering(bus, accepted)
        await asyncio.gather(*waiting)
        await client.call(pause_execution("d"))
        task.cancel()
    assert over.id not in processor.read
    assert len(processor.read) == 3
