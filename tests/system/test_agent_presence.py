"""What hosts show of themselves, and what is tidied up after those that never come back."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from processors.agents import Agent, AgentHost
from processors.agents import presence as presence_module
from processors.agents.agent import Pool, Role
from processors.agents.janitor import DELETED_MAX, Janitor
from processors.agents.outbox import GROUP
from processors.agents.placing import Placing
from processors.agents.presence import Presence
from streams.bus import Bus
from streams.partition import HOSTS, HOSTS_CARDS, tasks_key
from tests.system.hosts import Gate, answered, ask, kill, task, until

KEY = tasks_key("default", "r")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts show themselves so often that nobody waits for it."""
    monkeypatch.setattr(presence_module, "EVERY_S", 0.02)


async def shown(bus: Bus, key: str, name: str = "h") -> Any:
    """What a host says, or None."""
    said: Any = await bus.redis.hget(key, name)
    return None if said is None else orjson.loads(said)


async def test_a_host_shows_that_it_lives_and_what_it_does(bus: Bus) -> None:
    """R12: what allocation reads."""
    gate = Gate()
    agents = [
        Agent("a", ("r",), gate, 3, capabilities=("gpu",), region="eu", cost=0.5),
        Agent("b", ("s",), gate),
    ]
    async with AgentHost(bus, agents, name="h"):
        first = await until(lambda: shown(bus, HOSTS))
        await ask(bus, task("t0"), task("t1"))
        await until(lambda: gate.running == 2)

        async def busy() -> Any:
            said = await shown(bus, HOSTS)
            return said if said["running"] == {"a": 2} else None

        said = await until(busy)
        cards = await shown(bus, HOSTS_CARDS)
        gate.opened.set()
        await answered(bus, 2)

    assert said["beat"] > first["beat"]
    assert said["every_s"] == 0.02
    assert cards[0] == {
        "id": "a",
        "tenant": "default",
        "roles": ["r"],
        "capabilities": ["gpu"],
        "capacity": 3,
        "region": "eu",
        "cost": 0.5,
    }
    assert [card["id"] for card in cards] == ["a", "b"]


async def test_a_host_shows_itself_again_after_redis_was_emptied(bus: Bus) -> None:
    """F12."""
    async with AgentHost(bus, [Agent("a", ("r",), str)], name="h"):
        await until(lambda: shown(bus, HOSTS_CARDS))
        await bus.redis.flushdb()
        await until(lambda: shown(bus, HOSTS_CARDS))
        assert await shown(bus, HOSTS)


async def test_a_host_that_stops_says_so_and_is_gone_then_one_that_is_killed_is_not(
    bus: Bus, redis_url: str
) -> None:
    gate = Gate()
    host = AgentHost(bus, [Agent("a", ("r",), gate)], name="h")
    killed = AgentHost(redis_url, [Agent("b", ("s",), str)], name="killed")
    host.start()
    killed.start()
    await ask(bus, task("t"))
    await until(lambda: gate.running == 1)
    await until(lambda: shown(bus, HOSTS, "killed"))
    await kill(killed)
    stopping = asyncio.create_task(host.stop())

    async def draining() -> bool:
        said = await shown(bus, HOSTS)
        return bool(said and said.get("draining"))

    await until(draining)
    gate.opened.set()
    await stopping
    assert await bus.redis.hkeys(HOSTS) == await bus.redis.hkeys(HOSTS_CARDS) == [b"killed"]
    await killed.bus.close()


async def test_the_beat_of_ten_thousand_agents_is_bounded(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I16: larger hosts show themselves less often, and only agents at work are named."""
    monkeypatch.undo()
    agents = [Agent(f"agent-{n:05}", ("r",), str) for n in range(10_000)]
    pool = Pool(agents)
    presence = Presence(bus, "h", agents, Placing([pool], lambda _: None))
    await presence.show(cards=True)
    idle: Any = await bus.redis.hget(HOSTS, "h")
    for seat in pool.seats:
        pool.begin(seat)
    await presence.show()
    busy: Any = await bus.redis.hget(HOSTS, "h")

    assert presence.every_s == 2.5
    assert len(idle) < 100
    assert len(busy) < 200_000
    assert len(await shown(bus, HOSTS_CARDS)) == 10_000


async def test_names_that_were_left_behind_are_deleted_and_nothing_pending_is_forgotten(
    bus: Bus,
) -> None:
    """F18, I16: bounded at each look; who has tasks, lives or is known stays."""
    await ask(bus, task("t"))
    await bus.redis.xgroup_create(KEY, GROUP, id="0")
    await bus.redis.xreadgroup(GROUP, "has-a-task", {KEY: ">"})
    await bus.redis.hset(HOSTS, "known", b"{}")
    names = [f"gone-{n}" for n in range(DELETED_MAX + 50)]
    for name in ("known", "me", *names):
        await bus.redis.xgroup_createconsumer(KEY, GROUP, name)
    janitor = Janitor(bus, "me", [Role(KEY.encode())], forget_s=0.0)
    await janitor.sweep(KEY.encode())
    after_one = janitor.deleted
    for _ in range(3):
        await janitor.sweep(KEY.encode())
    rows: Any = await bus.redis.xinfo_consumers(KEY, GROUP)

    assert (after_one, janitor.deleted) == (DELETED_MAX, DELETED_MAX + 50)
    assert {row["name"] for row in rows} == {b"has-a-task", b"known", b"me"}


async def test_a_name_that_was_busy_lately_stays(bus: Bus) -> None:
    await ask(bus, task("t"))
    await bus.redis.xgroup_create(KEY, GROUP, id="0")
    await bus.redis.xgroup_createconsumer(KEY, GROUP, "lately")
    janitor = Janitor(bus, "me", [Role(KEY.encode())])
    await janitor.sweep(KEY.encode())

    assert janitor.deleted == 0


async def test_a_host_whose_beat_stands_still_is_taken_off_the_list(bus: Bus) -> None:
    janitor = Janitor(bus, "me", [Role(KEY.encode())], forget_s=0.0)
    await bus.redis.hset(HOSTS, mapping={"dead": b"1", "alive": b"1"})
    await bus.redis.hset(HOSTS_CARDS, mapping={"dead": b"[]", "alive": b"[]"})
    janitor = Janitor(bus, "me", [Role(KEY.encode())], forget_s=0.05)
    await janitor.forget()
    await asyncio.sleep(0.06)
    await bus.redis.hset(HOSTS, "alive", b"2")
    await janitor.forget()

    assert await bus.redis.hkeys(HOSTS) == await bus.redis.hkeys(HOSTS_CARDS) == [b"alive"]
    assert janitor.forgotten == 1
