"""The command processor's commits: how large they get, and what a failed one leaves behind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from processors import decide
from processors.command_processor import CommandProcessor
from processors.commands import create_workflow, register_agent, start_execution
from streams.codec import encode_command
from streams.leases import Leases
from streams.log import WRITER, Share
from streams.logs.memory import MemoryLog
from streams.message import Command
from streams.partition import partition_of
from tests.flows import document

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PARTITIONS = 3


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
    return Crashing(PARTITIONS)


@pytest.fixture
async def processor(log: Crashing) -> CommandProcessor:
    leases = Leases(log, WRITER, "me")
    await leases.round()
    bus: Any = Silent()
    made = CommandProcessor(log, bus, leases, lambda: NOW, PARTITIONS)
    for partition in range(PARTITIONS):
        await made.open(partition)
    return made


async def give(processor: CommandProcessor, *given: Command | bytes) -> None:
    """Hand commands over as one batch, bytes to partition 0, and wait for what it came to."""
    entries: dict[int, list[tuple[str, bytes]]] = {}
    for place, one in enumerate(given, 1):
        partition = partition_of(one.root, PARTITIONS) if isinstance(one, Command) else 0
        raw = encode_command(one) if isinstance(one, Command) else one
        entries.setdefault(partition, []).append((f"{place}-0", raw))
    await processor.handle({p: (processor.parts[p], batch) for p, batch in entries.items()})
    await processor.drain()


def agents(count: int, partition: int = 0) -> list[Command]:
    """Commands of one event each, to agents of one partition."""
    names = (f"a{n}" for n in itertools.count())
    mine = (name for name in names if partition_of(name, PARTITIONS) == partition)
    return [register_agent(n, name="n", roles=["r"]) for n in itertools.islice(mine, count)]


async def subjects(log: MemoryLog, partition: int) -> list[str]:
    """Whom the events of a partition happened to, in order."""
    return [stored.subject for stored in await log.read(partition, 0, 1_000)]


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


async def test_a_batch_becomes_commits_of_bounded_size(
    log: Crashing, processor: CommandProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "EVENTS_MAX", 4)
    given = {0: agents(10), 1: agents(3, 1), 2: agents(6, 2)}
    everything = [*given[0][:5], b"poison", *given[0][5:], *given[1], *given[2], b"more poison"]
    await give(processor, *everything)
    for partition, commands in given.items():
        assert await subjects(log, partition) == [command.subject for command in commands]
        last = max(place for place, one in enumerate(everything, 1) if one in commands)
        if partition == 0:
            last = len(everything)
        assert processor.parts[partition].cursor.stream_offset == f"{last}-0"
    assert processor.counters.events == 19
    assert processor.counters.commits == 5  # of 4, 4, 2 + 2, 1 + 3, and 3
    assert processor.counters.dead_letters == 2


async def test_one_command_may_make_more_events_than_fit(
    log: Crashing, processor: CommandProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = create_workflow(definition=document({f"t{n}": [] for n in range(5)}))
    await give(processor, create)
    monkeypatch.setattr(decide, "EVENTS_MAX", 4)
    starts = [start_execution(create.root) for _ in range(4)]
    await give(processor, *starts)
    assert processor.counters.commits == 1 + 4
    assert processor.counters.events == 1 + 4 * (2 + 5)


async def test_what_is_left_of_a_lost_partition_is_not_decided(
    log: Crashing, processor: CommandProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "EVENTS_MAX", 4)
    [seen] = [cursor for cursor in await log.cursors(WRITER) if cursor.partition == 0]
    await log.take([seen], "another")
    await give(processor, *agents(20), *agents(5, 1))
    assert await subjects(log, 0) == []
    assert len(await subjects(log, 1)) == 5
    assert processor.counters.fenced >= 1
