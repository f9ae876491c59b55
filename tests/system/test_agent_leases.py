"""Whose task it is: leases of hosts that live, die, or are stopped for too long."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from processors.agents import Agent, AgentHost, Assignment
from processors.agents import reader as reader_module
from processors.agents.claims import CLAIM
from processors.agents.desk import DELIVERIES_MAX
from processors.agents.outbox import Outbox
from streams.bus import Bus
from streams.line import Line
from streams.partition import tasks_key
from tests.system.hosts import (
    DEADLINE_S,
    REPLIES,
    Gate,
    answered,
    answers,
    ask,
    kill,
    settled,
    task,
    until,
)


async def test_what_a_dead_host_leaves_is_taken_over_and_a_live_ones_work_is_not(
    bus: Bus, redis_url: str
) -> None:
    slow, dead = Gate(), Gate()
    taken: list[str] = []
    async with AgentHost(redis_url, [Agent("a", ("r",), slow)], name="h1", lease_s=0.3):
        await ask(bus, task("slow"))
        await until(lambda: slow.running == 1)
        crashed = AgentHost(redis_url, [Agent("b", ("r",), dead, capacity=2)], name="h2")
        crashed.start()
        await ask(bus, task("d1"), task("d2"))
        await until(lambda: dead.running == 2)
        await kill(crashed)
        heir = Agent("c", ("r",), lambda a: taken.append(a.task_id), capacity=10)
        async with AgentHost(redis_url, [heir], name="h3", lease_s=0.3):
            await answered(bus, 2)
            await asyncio.sleep(1.0)  # more than three leases of the one that lives
            slow.opened.set()
            await answered(bus, 3)
            await until(lambda: settled(bus))

    assert sorted(taken) == ["d1", "d2"]
    assert slow.seen == ["slow"]
    await crashed.bus.close()


async def dead(bus: Bus, *tasks: Assignment, count: int | None = None, name: str = "dead") -> None:
    """A host that has read these tasks and shows no life."""
    key = tasks_key("default", "r")
    await ask(bus, *tasks)
    with suppress(ResponseError):  # it is there
        await bus.redis.xgroup_create(key, "agents", id="0", mkstream=True)
    await bus.redis.xreadgroup("agents", name, {key: ">"}, count=count or len(tasks))


async def owners(bus: Bus) -> Counter[str]:
    """How many pending entries each consumer has."""
    pending: Any = await bus.redis.xpending(tasks_key("default", "r"), "agents")
    return Counter({c["name"].decode(): c["pending"] for c in pending["consumers"]})


async def test_the_tasks_of_a_dead_host_are_found_behind_those_of_a_busy_one(bus: Bus) -> None:
    """Pitfall 8: what is not idle hides nothing, and lists longer than one claim are taken."""
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=1_500)], name="h1", lease_s=0.6):
        await ask(bus, *(task(f"busy{n}") for n in range(1_500)))
        await until(lambda: gate.running == 1_500)
        await dead(bus, *(task(f"t{n}") for n in range(250)))
        heir = Agent("b", ("r",), lambda _: None, capacity=1_000)
        async with AgentHost(bus, [heir], name="h2", lease_s=0.6) as second:
            got = await answered(bus, 250)
            gate.opened.set()
            await answered(bus, 1_750)
            await until(lambda: settled(bus))

    assert {c.data["agent"] for c in got} == {"b"}
    assert {c.data["delivery"] for c in got} == {2}
    assert second.counts.taken == 250
    assert len(gate.seen) == 1_500


async def test_an_entry_that_was_deleted_while_it_was_pending_is_let_go(bus: Bus) -> None:
    """Pitfall 7: a claim of it brings nothing; the engine asks again for what is gone."""
    await dead(bus, *(task(f"t{n}") for n in range(3)))
    key = tasks_key("default", "r")
    first: Any = await bus.redis.xrange(key, count=1)
    await bus.redis.xdel(key, first[0][0])
    heir = Agent("b", ("r",), lambda _: None, capacity=10)
    async with AgentHost(bus, [heir], name="h", lease_s=0.3) as host:
        await answered(bus, 2)
        await until(lambda: settled(bus))

    # Redis 7 forgets it by itself when it is claimed.
    assert (host.counts.vanished, host.counts.taken) in [(1, 3), (0, 2)]
    assert len(await answers(bus, "CompleteTask")) == 2


async def test_what_another_host_has_taken_is_dropped_and_left_to_it(bus: Bus) -> None:
    """I7: a host that had no part of the processor for longer than its lease."""
    gate, other = Gate(), Gate()
    agents = [Agent("a", ("r",), gate, capacity=5)]
    async with AgentHost(bus, agents, name="h1", lease_s=0.6) as host:
        await ask(bus, task("t"), task("mine"))
        await until(lambda: gate.running == 2)
        key = tasks_key("default", "r")
        entries: Any = await bus.redis.xrange(key, count=1)
        await bus.redis.xclaim(key, "agents", "thief", 0, [entries[0][0]])
        await until(lambda: gate.running == 1)
        assert (host.counts.lost, host.in_hand) == (1, 1)
        assert await owners(bus) == {"thief": 1, "h1": 1}
        gate.opened.set()
        (got,) = await answered(bus, 1)
    async with AgentHost(bus, [Agent("b", ("r",), other)], name="h2", lease_s=0.6):
        await until(lambda: other.running == 1)
        other.opened.set()
        await answered(bus, 2)
        await until(lambda: settled(bus))

    assert got.data["task"] == "mine"
    assert other.seen == ["t"]


async def test_an_answer_that_comes_too_late_leaves_the_task_to_its_new_owner(bus: Bus) -> None:
    """F34: the engine is to refuse it, but the entry is somebody else's now."""
    outbox = Outbox(bus, "h1", sure_s=60.0)
    key = tasks_key("default", "r").encode()
    await dead(bus, task("stolen"), task("mine"), name="h1")
    stolen, mine = [entry for entry, _ in await bus.redis.xrange(key)]
    await bus.redis.xclaim(key, "agents", "h2", 0, [stolen])
    long_ago = asyncio.get_running_loop().time() - 61.0
    outbox.answer(REPLIES, b"late", key, stolen, long_ago)
    outbox.answer(REPLIES, b"good", key, mine, long_ago)
    sending = asyncio.create_task(outbox.run(lambda: None))
    await asyncio.wait_for(outbox.idle.wait(), DEADLINE_S)
    sending.cancel()

    assert await owners(bus) == {"h2": 1}
    assert [entry for entry, _ in await bus.redis.xrange(key)] == [stolen]
    assert await bus.redis.xlen(REPLIES) == 2


async def test_a_claim_whose_reply_was_lost_is_found_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F19: what is this host's and not in its hands is taken like a dead host's."""
    await dead(bus, task("t"))
    host = AgentHost(bus, [Agent("b", ("r",), lambda _: None)], name="h", lease_s=0.3)
    call, lost = host._claims._call, 0

    async def lossy(calls: Any) -> list[Any]:
        nonlocal lost
        calls = list(calls)
        replies = await call(calls)
        if any(CLAIM in one for one in calls) and not lost:
            lost += 1
            raise RedisError("the reply was lost")
        return replies

    monkeypatch.setattr(host._claims, "_call", lossy)
    async with host:
        (got,) = await answered(bus, 1)
        await until(lambda: settled(bus))

    assert lost == 1
    assert got.data["delivery"] == 3


async def test_no_task_is_taken_while_the_clocks_disagree(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F27: Redis's clock jumps an hour at every look, and all seems idle; nothing is taken."""
    host = AgentHost(bus, [Agent("b", ("r",), lambda _: None)], name="h", lease_s=0.3)
    call, hour, looks = host._claims._call, 0, 0

    async def jumping(calls: Any) -> list[Any]:
        nonlocal hour, looks
        calls = list(calls)
        replies = await call(calls)
        if calls == [(b"TIME",)]:
            looks += 1
            hour += 3_600 if looks < 6 else 0
            return [(int(replies[0][0]) + hour, replies[0][1])]
        return replies

    monkeypatch.setattr(host._claims, "_call", jumping)
    await dead(bus, task("t"))
    async with host:
        await until(lambda: looks == 5)
        assert host.counts.taken == 0
        await answered(bus, 1)


async def test_reading_ones_own_again_is_no_delivery(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long task outlives any number of lost replies; only hosts that die count."""
    execute, lost, gate = Line.one, 0, Gate()

    async def lossy(line: Line, *arguments: Any) -> Any:
        nonlocal lost
        reply = await execute(line, *arguments)
        if arguments[0] == b"XREADGROUP" and gate.running and lost < 2 * DELIVERIES_MAX:
            lost += 1
            raise RedisError("the reply was lost")
        return reply

    monkeypatch.setattr(reader_module, "RETRY_S_MAX", 0.02)
    monkeypatch.setattr(Line, "one", lossy)
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=5)], name="h", lease_s=0.3):
        await ask(bus, task("t"))
        await until(lambda: lost == 2 * DELIVERIES_MAX)
        key = tasks_key("default", "r")

        async def counted() -> int:
            (row,) = await bus.redis.xpending_range(key, "agents", "-", "+", 1)
            return int(row["times_delivered"])

        async def is_one() -> bool:
            return await counted() == 1

        await until(is_one)
        gate.opened.set()
        (got,) = await answered(bus, 1)

    assert "delivery" not in got.data
    assert gate.seen == ["t"]
