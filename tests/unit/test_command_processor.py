"""The command processor's commits: how large they get, and what a failed one leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from processors.command_processor import CommandProcessor
from processors.commands import register_agent
from streams.codec import encode_command
from streams.leases import Leases
from streams.log import WRITER, Share
from streams.logs.memory import MemoryLog
from streams.message import Command

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Silent:
    """A Redis where nobody reads."""

    def __init__(self) -> None:
        self.mirrored = 0

    async def incarnation(self) -> str:
        return "1"

    async def last_id(self, key: str) -> str:
        return "0-0"

    async def mirror(self, shares: Sequence[tuple[int, int, Sequence[bytes]]]) -> list[list[int]]:
        self.mirrored += sum(len(messages) for _, _, messages in shares)
        return [[len(messages), 0, 0] for _, _, messages in shares]

    async def append(self, messages: Any) -> None:
        """Nobody waits for an outcome."""


class Crashing(MemoryLog):
    """A log with a bug in its next so many appends."""

    crashes = 0

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        if self.crashes:
            self.crashes -= 1
            raise RuntimeError("a bug")
        return await super().append(shares, time)


@pytest.fixture
async def log() -> Crashing:
    return Crashing(1)


@pytest.fixture
async def processor(log: Crashing) -> CommandProcessor:
    leases = Leases(log, WRITER, "me")
    await leases.round()
    bus: Any = Silent()
    made = CommandProcessor(log, bus, leases, lambda: NOW, 1)
    await made.open(0)
    return made


async def give(processor: CommandProcessor, *given: Command) -> None:
    """Hand commands over as one batch, and wait for what it came to."""
    entries = [(f"{place}-0", encode_command(command)) for place, command in enumerate(given, 1)]
    await processor.handle({0: (processor.parts[0], entries)})
    await processor.drain()


def agents(count: int) -> list[Command]:
    """Commands of one event each."""
    return [register_agent(f"a{n}", name="n", roles=["r"]) for n in range(count)]


async def test_a_commit_that_crashed_is_raised_once(
    log: Crashing, processor: CommandProcessor
) -> None:
    log.crashes = 1
    with pytest.raises(RuntimeError, match="a bug"):
        await give(processor, *agents(1))
    processor.parts[0].valid = False  # as the feed does when the agent has crashed
    await processor.settle()
    assert await processor.reopen(0)
    await give(processor, *agents(3))
    assert processor.counters.events == 3
    assert [stored.position for stored in await log.read(0, 0, 10)] == [1, 2, 3]
