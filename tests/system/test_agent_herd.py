"""Ten thousand agents at once: registered, cut off, and back together."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from processors.agents import Agent, AgentHost, register
from streams.bus import Bus
from streams.codec import decode_command
from streams.partition import FIELD, HOSTS_CARDS, commands_key, tasks_key
from tests.system.hosts import REPLIES, Gate, ask, settled, task, until

HOSTS_COUNT, AGENTS_A_HOST = 10, 1_000


async def test_ten_thousand_agents_reconnect_at_once_and_every_task_is_done(
    bus: Bus, redis_url: str
) -> None:
    """F50: all connections are cut in one instant, with all agents at work."""
    gate = Gate()
    count = HOSTS_COUNT * AGENTS_A_HOST

    def agents(number: int) -> list[Agent]:
        return [Agent(f"a{number}-{n}", ("r",), gate) for n in range(AGENTS_A_HOST)]

    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(AgentHost(redis_url, agents(n), name=f"h{n}"))
            for n in range(HOSTS_COUNT)
        ]
        await asyncio.gather(*(register(host.bus, host.agents, 16) for host in hosts))
        await ask(bus, *(task(f"t{n}") for n in range(count)))
        await until(lambda: gate.running == count)
        for kind in ("normal", "pubsub"):
            await bus.redis.execute_command(b"CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")  # type: ignore[no-untyped-call]
        gate.opened.set()
        await ask(bus, *(task(f"more{n}") for n in range(count)))

        async def all_answered() -> bool:
            return bool(await bus.redis.xlen(REPLIES) >= 2 * count)

        await until(all_answered)
        await until(lambda: settled(bus))
        assert await bus.redis.hlen(HOSTS_CARDS) == HOSTS_COUNT
        await asyncio.gather(*(host._notices.listening.wait() for host in hosts))
        entries: Any = await bus.redis.xrange(REPLIES)
        said = [decode_command(values[FIELD]) for _, values in entries]
        done = Counter(c.data["task"] for c in said if c.type == "CompleteTask")

    assert gate.most == count, "void: they were never all at work"
    assert len(done) == 2 * count
    assert len(gate.seen) == 2 * count, "no task was done twice"
    registered = [await bus.redis.xlen(commands_key(p)) for p in range(16) if p != 7]
    assert all(n > 0 for n in registered)
    info: Any = await bus.redis.xinfo_groups(tasks_key("default", "r"))
    assert info[0]["consumers"] == HOSTS_COUNT
