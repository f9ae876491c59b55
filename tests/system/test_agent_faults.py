"""Hosts that crash, and a Redis that goes, forgets, refuses or loses replies."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.exceptions import RedisError

from processors.agents import (
    Agent,
    AgentHost,
    Assignment,
)
from processors.agents import host as host_module
from processors.agents import outbox as outbox_module
from streams.bus import Bus
from streams.line import Line
from tests.system.hosts import (
    DEADLINE_S,
    Gate,
    answered,
    answers,
    ask,
    kill,
    settled,
    task,
    until,
)


async def test_what_a_crashed_host_had_is_done_when_it_is_back(bus: Bus, redis_url: str) -> None:
    gate = Gate()
    crashed = AgentHost(redis_url, [Agent("a", ("r",), gate, capacity=5)], name="h")
    crashed.start()
    await ask(bus, *(task(f"t{n}") for n in range(20)))
    await until(lambda: gate.running == 5)
    await kill(crashed)
    assert await answers(bus, "CompleteTask") == []

    async with AgentHost(redis_url, [Agent("a", ("r",), lambda _: None)], name="h"):
        got = await answered(bus, 20)
        await until(lambda: settled(bus))

    assert len({c.data["task"] for c in got}) == len(got) == 20
    await crashed.bus.close()


async def test_a_host_goes_on_after_redis_was_emptied(bus: Bus) -> None:
    gate = Gate()
    agents = [Agent("a", ("r",), gate, capacity=10), Agent("b", ("other",), lambda _: None)]
    async with AgentHost(bus, agents, name="h"):
        await ask(bus, task("before"))
        await until(lambda: gate.running == 1)
        await bus.redis.flushdb()
        gate.opened.set()
        await answered(bus, 1)  # the answer arrives all the same
        await ask(bus, task("after"), task("other", role="other"))
        got = await answered(bus, 3)

    assert {c.data["task"] for c in got} == {"before", "after", "other"}


async def test_answers_are_kept_while_redis_refuses_them_and_no_more_is_taken(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "OUTBOX_ENTRIES_MAX", 20)
    sent = bus.line.one

    async def refuse(*_: Any) -> None:
        raise RedisError("OOM command not allowed")

    agent = Agent("a", ("r",), lambda _: None, capacity=5)
    async with AgentHost(bus, [agent], name="h") as host:
        await ask(bus, task("first"))
        await answered(bus, 1)
        await ask(bus, *(task(f"t{n}") for n in range(500)))
        monkeypatch.setattr(bus.line, "one", refuse)
        await until(lambda: host._outbox.full)
        done = host.counts.completed
        await asyncio.sleep(0.1)
        assert host.counts.completed == done < 500
        monkeypatch.setattr(bus.line, "one", sent)
        got = await answered(bus, 501)
        await until(lambda: settled(bus))

    assert len({c.id for c in got}) == 501


async def test_a_reply_that_is_lost_loses_no_task(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An XREADGROUP was carried out and its reply did not arrive: the tasks are its own."""
    execute, lost = Line.one, 0

    async def lossy(line: Line, *arguments: Any) -> Any:
        nonlocal lost
        reply = await execute(line, *arguments)
        if arguments[0] == b"XREADGROUP" and any(got for _, got in reply or ()) and lost < 3:
            lost += 1
            raise RedisError("the reply was lost")
        return reply

    monkeypatch.setattr(Line, "one", lossy)
    done: Counter[str] = Counter()

    async def work(assignment: Assignment) -> None:
        done[assignment.task_id] += 1

    async with AgentHost(bus, [Agent("a", ("r",), work, capacity=10)], name="h"):
        await ask(bus, *(task(f"t{n}") for n in range(50)))
        await answered(bus, 50)
        await until(lambda: settled(bus))

    assert lost == 3
    assert len(done) == 50
    assert set(done.values()) == {1}


async def test_a_host_waits_for_a_redis_that_is_not_there_and_stops_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_module, "FLUSH_S", 0.1)
    host = AgentHost("redis://127.0.0.1:1/0", [Agent("a", ("r",), str)], name="h")
    host.start()
    await until(lambda: host._reader.errors >= 3)
    await asyncio.wait_for(host.stop(), DEADLINE_S)
