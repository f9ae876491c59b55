"""Hosts as real processes that are killed, and stopped for longer than their lease."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from processors.agents import AgentHost
from streams.bus import Bus
from streams.partition import HOSTS, tasks_key
from tests.system.hosts import (
    FOR_EVER,
    LEASE_S,
    Gate,
    answered,
    answers,
    ask,
    child,
    heir,
    settled,
    task,
    until,
)


async def test_the_tasks_of_a_killed_host_are_done_by_another(bus: Bus, redis_url: str) -> None:
    """F9, F34, I7: all of them, once, as a second delivery."""
    gate = Gate()
    gate.opened.set()
    async with child(redis_url, "killed", FOR_EVER) as killed:
        await ask(bus, *(task(f"t{n}") for n in range(40)))
        await answered(bus, 40, "StartTask")
        async with AgentHost(bus, [heir(gate)], name="heir", lease_s=LEASE_S) as host:
            killed.send(signal.SIGKILL)
            got = await answered(bus, 40)
            await until(lambda: settled(bus))

    assert {c.data["task"] for c in got} == {f"t{n}" for n in range(40)} == set(gate.seen)
    assert {(c.data["agent"], c.data["delivery"]) for c in got} == {("heir", 2)}
    assert host.counts.taken == len(gate.seen) == 40, "void: nothing was taken over"


async def test_a_host_that_was_stopped_drops_what_it_lost(bus: Bus, redis_url: str) -> None:
    """F34, F35, I7: work that costs money ends when it is another's; neither is disturbed."""
    gate = Gate()
    async with child(redis_url, "stopped", FOR_EVER) as stopped:
        await ask(bus, *(task(f"t{n}") for n in range(10)))
        await answered(bus, 10, "StartTask")
        stopped.send(signal.SIGSTOP)
        async with AgentHost(bus, [heir(gate)], name="heir", lease_s=LEASE_S):
            await until(lambda: gate.running == 10)
            stopped.send(signal.SIGCONT)

            async def idle() -> bool:
                said: Any = await bus.redis.hget(HOSTS, "stopped")
                return not json.loads(said)["running"]

            await until(idle)
            stopped.send(signal.SIGTERM)
            counts = await stopped.line()
            assert gate.running == 10
            gate.opened.set()
            got = await answered(bus, 10)
            await until(lambda: settled(bus))

    assert counts["lost"] == 10, "void: it did not notice"
    assert {c.data["agent"] for c in got} == {"heir"}
    assert len({c.data["task"] for c in got}) == len(got) == 10


async def test_the_late_answer_of_a_stopped_host_leaves_the_task_to_the_other(
    bus: Bus, redis_url: str
) -> None:
    """F35, I7: it says which delivery it is for, so that the engine can refuse it."""
    gate, key = Gate(), tasks_key("default", "r")
    async with child(redis_url, "stopped", LEASE_S) as stopped:
        await ask(bus, task("t"))
        await answered(bus, 1, "StartTask")
        stopped.send(signal.SIGSTOP)
        async with AgentHost(bus, [heir(gate)], name="heir", lease_s=LEASE_S):
            await until(lambda: gate.running == 1)
            await answered(bus, 2, "StartTask")
            stopped.send(signal.SIGCONT)
            (late,) = await answered(bus, 1)
            pending: Any = await bus.redis.xpending(key, "agents")
            held = {c["name"]: c["pending"] for c in pending["consumers"]}
            gate.opened.set()
            _, good = await answered(bus, 2)
            await until(lambda: settled(bus))

    assert held == {b"heir": 1}, "the late answer must not take the task off its stream"
    assert (late.data["agent"], "delivery" in late.data) == ("of-stopped", False)
    assert (good.data["agent"], good.data["delivery"]) == ("heir", 2)
    said = {c.data["agent"]: c.data.get("delivery", 1) for c in await answers(bus, "StartTask")}
    assert said == {"of-stopped": 1, "heir": 2}


async def test_agents_that_all_vanish_and_return_begin_what_they_had_once_more(
    bus: Bus, redis_url: str
) -> None:
    """F38: nothing is tried while nobody is there, and once when they are back."""
    async with child(redis_url, "only", FOR_EVER) as gone:
        await ask(bus, *(task(f"t{n}") for n in range(20)))
        await answered(bus, 20, "StartTask")
        gone.send(signal.SIGKILL)
        await asyncio.to_thread(gone.process.wait)
    await asyncio.sleep(2 * LEASE_S)  # the time is over, and nobody has noticed
    assert len(await answers(bus)) == 20
    async with child(redis_url, "only", 0.0):
        got = await answered(bus, 20)
        await until(lambda: settled(bus))

    assert {c.data["task"] for c in got} == {f"t{n}" for n in range(20)}
    assert {c.data["delivery"] for c in got} == {2}


async def test_a_host_that_is_told_to_stop_hands_its_tasks_over_at_once(
    bus: Bus, redis_url: str
) -> None:
    """Nobody waits for its lease: what does not end in time is in the role's stream again."""
    gate = Gate()
    gate.opened.set()
    async with child(redis_url, "leaving", FOR_EVER) as leaving:
        await ask(bus, *(task(f"t{n}") for n in range(60)))  # more than it has room for
        await answered(bus, 50, "StartTask")
        leaving.send(signal.SIGTERM)
        counts = await leaving.line()
        pending: Any = await bus.redis.xpending(tasks_key("default", "r"), "agents")
        assert pending["pending"] == 0
        assert await bus.redis.hkeys("hosts") == []
        async with AgentHost(bus, [heir(gate)], name="heir"):
            got = await answered(bus, 60)
            await until(lambda: settled(bus))

    assert counts["handed_back"] == 50
    assert {c.data["task"] for c in got} == {f"t{n}" for n in range(60)}
