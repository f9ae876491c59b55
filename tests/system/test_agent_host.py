"""The agents' side on a real Redis: every task once, by the least loaded, and no more than fit."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

import pytest

from processors.agents import (
    Agent,
    AgentHost,
    Assignment,
    simulated_agents,
)
from streams.bus import Bus
from streams.partition import tasks_key
from tests.system.hosts import (
    Gate,
    answered,
    answers,
    ask,
    settled,
    task,
    until,
)


async def test_answers_arrive_on_the_reply_stream_and_tasks_leave_theirs(bus: Bus) -> None:
    async def shout(assignment: Assignment) -> dict[str, Any]:
        return {"said": assignment.input["name"].upper()}

    await ask(bus, task("early"))  # before the group exists
    async with AgentHost(bus, [Agent("a", ("r",), shout)], name="h"):
        await ask(bus, task("late"))
        got = await answered(bus, 2)
        await until(lambda: settled(bus))

    assert {c.data["task"]: c.data["output"]["said"] for c in got} == {
        "early": "EARLY",
        "late": "LATE",
    }
    assert {(c.subject, c.actor, c.data["agent"]) for c in got} == {("execution/e", "a", "a")}
    assert all(c.data["started_at"] for c in got)
    assert len(await answers(bus)) == 2  # no StartTask for what is short


async def test_a_plain_function_is_a_handler_too(bus: Bus) -> None:
    async with AgentHost(bus, [Agent("a", ("r",), lambda a: a.attempt)], name="h"):
        await ask(bus, task("t", attempt=3))
        (got,) = await answered(bus, 1)

    assert got.data["output"] == 3


async def test_two_hosts_do_every_task_once(bus: Bus, redis_url: str) -> None:
    done: Counter[str] = Counter()
    by: Counter[str] = Counter()

    def agent(name: str) -> Agent:
        async def work(assignment: Assignment) -> None:
            done[assignment.task_id] += 1
            by[name] += 1
            await asyncio.sleep(0.001)

        return Agent(name, ("r",), work, capacity=10)

    async with (
        AgentHost(redis_url, [agent("a")], name="h1"),
        AgentHost(redis_url, [agent("b")], name="h2"),
    ):
        await ask(bus, *(task(f"t{n}") for n in range(1_000)))
        await answered(bus, 1_000)
        await until(lambda: settled(bus))

    assert set(done.values()) == {1}
    assert min(by["a"], by["b"]) > 100
    assert len(await answers(bus, "CompleteTask")) == 1_000


async def test_no_more_is_taken_than_there_is_room_for(bus: Bus) -> None:
    gate, other = Gate(), Gate()
    full = Agent("a", ("r",), gate, capacity=3)
    async with AgentHost(bus, [full], name="h1") as host:
        await ask(bus, *(task(f"t{n}") for n in range(10)))
        await until(lambda: gate.running == 3)
        assert host.in_hand == 3
        async with AgentHost(bus, [Agent("b", ("r",), other, capacity=100)], name="h2"):
            await until(lambda: other.running == 7)  # nothing was kept from the one with room
            gate.opened.set()
            other.opened.set()
            await answered(bus, 10)

    assert gate.most == 3


async def test_the_least_loaded_agent_of_a_role_works(bus: Bus) -> None:
    gates = [Gate() for _ in range(4)]
    agents = [Agent(f"a{n}", ("r",), gate, capacity=5) for n, gate in enumerate(gates)]
    async with AgentHost(bus, agents, name="h"):
        await ask(bus, *(task(f"t{n}") for n in range(8)))
        await until(lambda: sum(gate.running for gate in gates) == 8)
        assert [gate.running for gate in gates] == [2, 2, 2, 2]
        for gate in gates:
            gate.opened.set()
        await answered(bus, 8)


async def test_a_full_role_does_not_hold_up_the_others_and_goes_on_at_once(bus: Bus) -> None:
    gate = Gate()
    agents = [Agent("a", ("slow",), gate), Agent("b", ("fast",), lambda _: None)]
    async with AgentHost(bus, agents, name="h"):
        await ask(bus, task("s1", role="slow"), task("s2", role="slow"))
        await until(lambda: gate.running == 1)
        await ask(bus, task("f", role="fast"))
        await answered(bus, 1)
        await asyncio.sleep(0.1)  # the reader blocks now, on the fast role only
        before = monotonic()
        gate.opened.set()
        await answered(bus, 3)

    assert monotonic() - before < 1.0  # and not when the blocking read ends


async def test_one_agent_of_many_roles_keeps_to_its_capacity(bus: Bus) -> None:
    gate = Gate()
    roles = tuple(f"r{n}" for n in range(20))
    async with AgentHost(bus, [Agent("a", roles, gate, capacity=5)], name="h") as host:
        await ask(bus, *(task(f"t{n}-{role}", role=role) for role in roles for n in range(10)))
        await until(lambda: gate.running == 5)
        assert host.in_hand <= 5 + len(roles)
        gate.opened.set()
        await answered(bus, 200)

    assert gate.most == 5
    assert len(set(gate.seen)) == len(gate.seen) == 200


async def test_a_stop_lets_running_tasks_finish_and_takes_nothing_new(bus: Bus) -> None:
    gate = Gate()
    host = AgentHost(bus, [Agent("a", ("r",), gate, capacity=2)], name="h")
    host.start()
    await ask(bus, *(task(f"t{n}") for n in range(5)))
    await until(lambda: gate.running == 2)
    stopping = asyncio.create_task(host.stop())
    await asyncio.sleep(0)
    gate.opened.set()
    await stopping

    assert len(await answers(bus, "CompleteTask")) == 2
    pending: Any = await bus.redis.xpending(tasks_key("default", "r"), "agents")
    assert pending["pending"] == 0
    assert await bus.redis.xlen(tasks_key("default", "r")) == 3


async def test_what_does_not_finish_in_time_goes_to_others_at_once(bus: Bus) -> None:
    gate = Gate()
    host = AgentHost(bus, [Agent("a", ("r",), gate)], name="h1")
    host.start()
    await ask(bus, task("t"))
    await until(lambda: gate.running == 1)
    before = monotonic()
    await host.stop(grace_s=0.1)

    assert monotonic() - before < 1.5  # an idle or full reader does not hold it up
    assert gate.running == 0
    assert await answers(bus, "CompleteTask") == []
    async with AgentHost(bus, [Agent("b", ("r",), lambda _: None)], name="h2"):
        (got,) = await answered(bus, 1)
        await until(lambda: settled(bus))

    assert (got.data["agent"], got.data["delivery"]) == ("b", 2)  # above what the first has said


async def test_a_handler_that_does_not_end_keeps_its_task_from_others(bus: Bus) -> None:
    release = asyncio.Event()

    async def stubborn(assignment: Assignment) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    host = AgentHost(bus, [Agent("a", ("r",), stubborn)], name="h1")
    host.start()
    await ask(bus, task("t"))
    await answered(bus, 1, "StartTask")
    await host.stop(grace_s=0.0)
    pending: Any = await bus.redis.xpending(tasks_key("default", "r"), "agents")
    release.set()

    assert pending["pending"] == 1  # until its lease is over
    assert host.counts.handed_back == 0


async def test_simulated_agents_serve_many_roles(bus: Bus) -> None:
    roles = [f"role-{n}" for n in range(191)]
    async with AgentHost(bus, simulated_agents(roles, 2, factor=0.01), name="h") as host:
        tasks = [task(f"t{n}", role=roles[n % 191], duration=float(n % 3)) for n in range(2_000)]
        await ask(bus, *tasks)
        got = await answered(bus, 2_000)

    assert all(c.data["output"] == {"task": c.data["task"]} for c in got)
    assert host.counts.completed == 2_000


@pytest.mark.parametrize(
    "agents",
    [
        [],
        [Agent("a", (), str)],
        [Agent("a", ("r",), str, capacity=0)],
        [Agent("a", ("r",), str), Agent("a", ("r",), str)],
    ],
)
async def test_hosts_refuse_agents_that_cannot_work(bus: Bus, agents: list[Agent]) -> None:
    with pytest.raises(ValueError, match=r"roles|capacity|two agents"):
        AgentHost(bus, agents, name="h")
