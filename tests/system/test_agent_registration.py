"""Hosts make themselves and their agents known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from processors.agents import (
    Agent,
    register,
    run_agents,
)
from streams.bus import Bus
from streams.codec import decode_command
from streams.partition import COMMANDS_INBOX, FIELD, commands_key, partition_of
from tests.system.hosts import (
    answered,
    ask,
    task,
)


async def test_agents_are_registered_with_their_cards(bus: Bus) -> None:
    agents = [Agent(f"a{n}", ("r",), str, capacity=3) for n in range(10)]
    await register(bus, agents, partitions=16)
    await register(bus, agents[:1])
    key = commands_key(partition_of("a3", 16))
    entries: Any = await bus.redis.xrange(key)
    inbox: Any = await bus.redis.xrange(COMMANDS_INBOX)

    commands = [decode_command(values[FIELD]) for _, values in entries]
    (command,) = [c for c in commands if c.root == "a3"]
    assert (command.type, command.aggregate) == ("RegisterAgent", "agent")
    assert (command.data["roles"], command.data["capacity"]) == (["r"], 3)
    assert command.data["card"]["name"] == "a3"
    assert [decode_command(values[FIELD]).root for _, values in inbox] == ["a0"]


async def test_running_agents_registers_works_and_stops_when_cancelled(
    bus: Bus, redis_url: str
) -> None:
    running = asyncio.create_task(run_agents(redis_url, [Agent("a", ("r",), str)], name="h"))
    await ask(bus, task("t"))
    await answered(bus, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await bus.redis.xlen(COMMANDS_INBOX) == 1
