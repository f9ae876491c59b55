"""Tasks for one agent by name, and agents that get no work for now."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from processors.agents import Agent, AgentHost, Assignment, encode_assignment
from processors.agents import agent as agent_module
from processors.agents.wire import encode_gate
from streams.bus import Bus
from streams.partition import HOSTS, gate_channel, pushed_key, tasks_key
from tests.system.hosts import Gate, answered, ask, settled, task, until


async def push(bus: Bus, host: str, *tasks: Assignment) -> None:
    """Put tasks into the stream of a host."""
    await bus.append({pushed_key(host): [encode_assignment(one) for one in tasks]})


async def close(bus: Bus, host: AgentHost, agent: str, *, is_open: bool = False) -> None:
    """Say whether an agent gets work, once the host listens."""
    await host._notices.listening.wait()
    await bus.redis.publish(gate_channel(host.name), encode_gate(agent, is_open))
    _, seat = host._desk.placing.seats[agent]
    await until(lambda: seat.is_open == is_open)


async def all_settled(bus: Bus, host: str) -> bool:
    """Whether the host's own stream is empty, too."""
    own = pushed_key(host)
    pending: Any = await bus.redis.xpending(own, "agents")
    return await settled(bus) and pending["pending"] == 0 and await bus.redis.xlen(own) == 0


async def test_a_task_for_one_agent_is_done_by_that_one(bus: Bus) -> None:
    agents = [Agent(f"a{n}", ("r",), lambda _: None) for n in range(5)]
    async with AgentHost(bus, agents, name="h"):
        await push(bus, "h", *(task(f"t{n}", agent="a3") for n in range(20)))
        got = await answered(bus, 20)
        await until(lambda: all_settled(bus, "h"))

    assert {c.data["agent"] for c in got} == {"a3"}


async def test_what_waits_for_a_busy_agent_holds_up_nobody(bus: Bus) -> None:
    gates = {name: Gate() for name in ("a", "b")}
    agents = [Agent(name, ("r",), gate) for name, gate in gates.items()]
    async with AgentHost(bus, agents, name="h") as host:
        await push(bus, "h", *(task(f"a{n}", agent="a") for n in range(3)))
        await until(lambda: gates["a"].running == 1)
        await push(bus, "h", task("b0", agent="b"))
        await until(lambda: gates["b"].running == 1)
        gates["b"].opened.set()
        await answered(bus, 1)
        await ask(bus, task("pulled"))  # the one with room does it
        await answered(bus, 2)
        assert host.in_hand == 3
        gates["a"].opened.set()
        got = {c.data["task"]: c.data["agent"] for c in await answered(bus, 5)}
        await until(lambda: all_settled(bus, "h"))

    assert got == {"a0": "a", "a1": "a", "a2": "a", "b0": "b", "pulled": "b"}
    assert gates["a"].most == 1


async def test_no_more_is_read_for_busy_agents_than_may_wait(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I16: a bound for what waits for single agents; it goes on when there is room."""
    monkeypatch.setattr(agent_module, "PUSHED_WAITING_MAX", 10)
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h") as host:
        await push(bus, "h", *(task(f"t{n}", agent="a") for n in range(50)))
        await until(lambda: host.in_hand == 11)
        assert await bus.redis.xlen(pushed_key("h")) == 50
        gate.opened.set()
        await answered(bus, 50)
        await until(lambda: all_settled(bus, "h"))

    assert gate.seen == [f"t{n}" for n in range(50)]


@pytest.mark.parametrize("wrong", [{"agent": "nobody"}, {"agent": "x"}, {"agent": "y"}, {}])
async def test_a_task_for_an_agent_that_is_not_here_goes_to_its_role(
    bus: Bus, wrong: dict[str, Any]
) -> None:
    """F36: nobody does another tenant's or another role's task; anybody of the role does."""
    agents = [
        Agent("x", ("other",), str),
        Agent("y", ("r",), str, tenant="acme"),
    ]
    async with AgentHost(bus, agents, name="h1") as host:
        await push(bus, "h1", task("t", **wrong))
        async with AgentHost(bus, [Agent("b", ("r",), lambda _: None)], name="h2"):
            (got,) = await answered(bus, 1)
        await until(lambda: all_settled(bus, "h1"))
        assert host.counts.handed_back == 1

    assert (got.data["agent"], got.data["delivery"]) == ("b", 2)


async def test_a_closed_agent_gets_nothing_until_it_is_opened(bus: Bus) -> None:
    """R30: its circuit is open; what it has begun goes on, what waits for it goes to others."""
    gates = {name: Gate() for name in ("a", "b")}
    agents = [Agent(name, ("r",), gate, capacity=2) for name, gate in gates.items()]
    gates["b"].opened.set()
    async with AgentHost(bus, agents, name="h") as host:
        await push(bus, "h", *(task(f"p{n}", agent="a") for n in range(4)))
        await until(lambda: gates["a"].running == 2)
        await close(bus, host, "a")
        await until(lambda: len(gates["b"].seen) == 2)  # what waited for it
        await push(bus, "h", task("late", agent="a"))
        await ask(bus, *(task(f"t{n}") for n in range(20)))
        await answered(bus, 23)
        assert len(gates["a"].seen) == 2
        gates["a"].opened.set()
        await answered(bus, 25)  # what it had begun
        await close(bus, host, "a", is_open=True)
        await push(bus, "h", task("again", agent="a"))
        got = {c.data["task"]: c.data["agent"] for c in await answered(bus, 26)}
        await until(lambda: all_settled(bus, "h"))

    assert got["again"] == "a"
    assert got["late"] == "b"
    assert sorted(gates["a"].seen) == ["again", "p0", "p1"]


async def test_an_agent_on_trial_gets_one_task_at_a_time(bus: Bus) -> None:
    """R30: half-open; and the host shows what it was told, so that it need not be said again."""
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=5)], name="h") as host:
        await ask(bus, *(task(f"t{n}") for n in range(2)))
        await until(lambda: gate.running == 2)
        await host._notices.listening.wait()
        await bus.redis.publish(gate_channel("h"), encode_gate("a", True, 1))
        await until(lambda: host._desk.placing.gates() == {"a": 1})
        await ask(bus, *(task(f"u{n}") for n in range(3)))
        await push(bus, "h", task("named", agent="a"))
        gate.most = 0
        gate.opened.set()
        await answered(bus, 6)
        assert gate.most == 1
        assert host._desk._runner.running == set()
        await bus.redis.publish(gate_channel("h"), encode_gate("a", True))
        await until(lambda: host._desk.placing.gates() == {})
        gate.opened.clear()
        await ask(bus, *(task(f"v{n}") for n in range(5)))
        await until(lambda: gate.running == 5)
        gate.opened.set()
        await answered(bus, 11)


async def test_a_role_whose_agents_are_all_closed_waits_and_leaves_its_tasks_to_other_hosts(
    bus: Bus,
) -> None:
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h1") as host:
        await ask(bus, task("running"))
        await until(lambda: gate.running == 1)
        await close(bus, host, "a")
        gate.opened.set()
        await answered(bus, 1)
        await ask(bus, task("t"))
        assert await bus.redis.xlen(tasks_key("default", "r")) >= 1
        async with AgentHost(bus, [Agent("b", ("r",), lambda _: None)], name="h2"):
            await answered(bus, 2)
        await ask(bus, task("waits"))
        await close(bus, host, "a", is_open=True)
        got = await answered(bus, 3)

    assert [c.data["agent"] for c in got] == ["a", "b", "a"]


async def test_a_host_shows_which_gates_it_was_told_of(bus: Bus) -> None:
    """So that whoever tells it says it until it was heard, and then no more."""
    async with AgentHost(bus, [Agent("a", ("r",), str), Agent("b", ("r",), str)], name="h") as host:
        await close(bus, host, "a")

        async def said() -> bool:
            word: Any = await bus.redis.hget(HOSTS, "h")
            return bool(word and orjson.loads(word).get("gates") == {"a": 0})

        await until(said)
