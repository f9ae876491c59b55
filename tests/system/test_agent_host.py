"""The agents' side on a real Redis: every task once, whatever happens to hosts and to Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import RedisError

from processors.agents import (
    Agent,
    AgentHost,
    Assignment,
    TaskError,
    encode_assignment,
    register,
    run_agents,
    simulated_agents,
)
from processors.agents import host as host_module
from processors.agents import outbox as outbox_module
from streams.bus import Bus
from streams.codec import decode_command
from streams.message import Command
from streams.partition import COMMANDS_INBOX, FIELD, commands_key, partition_of, tasks_key

REPLIES = commands_key(7)
DEADLINE_S = 15.0


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    bus = Bus(redis_url)
    yield bus
    await bus.close()


def task(
    name: str,
    *,
    attempt: int = 1,
    role: str = "r",
    timeout_seconds: float | None = 60.0,
    duration: float = 0.0,
) -> Assignment:
    return Assignment(
        execution_id="e",
        task_id=name,
        attempt=attempt,
        role=role,
        tenant="default",
        input={"name": name},
        metadata={"duration": duration},
        timeout_seconds=timeout_seconds,
        reply_to=REPLIES,
    )


async def ask(bus: Bus, *tasks: Assignment) -> None:
    messages: dict[str, list[bytes]] = {}
    for one in tasks:
        messages.setdefault(tasks_key(one.tenant, one.role), []).append(encode_assignment(one))
    await bus.append(messages)


async def answers(bus: Bus, kind: str | None = None) -> list[Command]:
    entries: Any = await bus.redis.xrange(REPLIES)
    commands = [decode_command(values[FIELD]) for _, values in entries]
    return [command for command in commands if kind in (None, command.type)]


async def until(condition: Callable[[], Any]) -> Any:
    """Poll a plain or async condition until it holds."""
    deadline = monotonic() + DEADLINE_S
    while True:
        result = condition()
        if hasattr(result, "__await__"):
            result = await result
        if result:
            return result
        assert monotonic() < deadline, "the deadline has passed"
        await asyncio.sleep(0.01)


async def answered(bus: Bus, count: int, kind: str = "CompleteTask") -> list[Command]:
    async def enough() -> list[Command] | None:
        got = await answers(bus, kind)
        return got if len(got) >= count else None

    got: list[Command] = await until(enough)
    return got


async def settled(bus: Bus, role: str = "r") -> bool:
    """Whether the role's stream is empty and nothing is pending in it."""
    key = tasks_key("default", role)
    pending: Any = await bus.redis.xpending(key, "agents")
    return pending["pending"] == 0 and await bus.redis.xlen(key) == 0


def kill(host: AgentHost) -> None:
    """End a host as a crash would: nothing is said, nothing is sent."""
    for loop in host._loops:
        loop.cancel()
    host._loops = []
    for work in host._desk.in_hand.values():
        work.answered = True
        assert work.task is not None
        work.task.cancel()


class Gate:
    """A handler that waits until it is opened, and knows what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.running = 0
        self.most = 0
        self.opened = asyncio.Event()

    async def __call__(self, assignment: Assignment) -> str:
        self.seen.append(assignment.task_id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.opened.wait()
        finally:
            self.running -= 1
        return assignment.task_id


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


async def test_what_a_crashed_host_had_is_done_when_it_is_back(bus: Bus, redis_url: str) -> None:
    gate = Gate()
    crashed = AgentHost(redis_url, [Agent("a", ("r",), gate, capacity=5)], name="h")
    crashed.start()
    await ask(bus, *(task(f"t{n}") for n in range(20)))
    await until(lambda: gate.running == 5)
    kill(crashed)
    assert await answers(bus, "CompleteTask") == []

    async with AgentHost(redis_url, [Agent("a", ("r",), lambda _: None)], name="h"):
        got = await answered(bus, 20)
        await until(lambda: settled(bus))

    assert len({c.data["task"] for c in got}) == len(got) == 20
    await crashed.bus.close()


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
        kill(crashed)
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


async def test_a_repeated_task_joins_the_one_in_hand(bus: Bus) -> None:
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=10)], name="h") as host:
        await ask(bus, task("t"), task("t"), task("t"))
        await until(lambda: host.counts.repeated == 2)
        gate.opened.set()
        await until(lambda: settled(bus))

    assert gate.seen == ["t"]
    assert len(await answers(bus, "CompleteTask")) == 1


async def test_a_task_that_was_answered_gets_the_same_answer_without_being_done(bus: Bus) -> None:
    runs: list[str] = []
    agent = Agent("a", ("r",), lambda a: runs.append(a.task_id))
    async with AgentHost(bus, [agent], name="h"):
        await ask(bus, task("t"))
        await answered(bus, 1)
        await ask(bus, task("t"))
        first, second = await answered(bus, 2)
        await ask(bus, task("t", attempt=2))
        assert len(await answered(bus, 3)) == 3
        await until(lambda: settled(bus))

    assert first == second  # the same command id: the engine knows it
    assert runs == ["t", "t"]


async def test_a_long_task_is_said_to_be_working(bus: Bus) -> None:
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h"):
        await ask(bus, task("t"))
        await answered(bus, 1, "StartTask")
        gate.opened.set()
        await answered(bus, 1)

    assert [c.type for c in await answers(bus)] == ["StartTask", "CompleteTask"]


async def test_a_task_that_takes_too_long_is_cancelled_and_fails(bus: Bus) -> None:
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h") as host:
        await ask(bus, task("t", timeout_seconds=0.2), task("next"))
        (got,) = await answered(bus, 1, "FailTask")
        await until(lambda: gate.seen == ["t", "next"])  # its place is free again
        gate.opened.set()
        await answered(bus, 1)
        assert host.counts.timed_out == 1

    assert (got.data["error"], got.data["retryable"]) == ("timed out after 0.2 s", True)


async def test_a_handler_that_ignores_its_cancellation_keeps_its_place_only(bus: Bus) -> None:
    release = asyncio.Event()

    async def stubborn(assignment: Assignment) -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    async with AgentHost(bus, [Agent("a", ("r",), stubborn)], name="h"):
        await ask(bus, task("t", timeout_seconds=0.1))
        await answered(bus, 1, "FailTask")
        release.set()

    assert await answers(bus, "CompleteTask") == []


@pytest.mark.parametrize("plain", [True, False])
async def test_what_a_handler_raises_is_the_failure(bus: Bus, plain: bool) -> None:
    def refuse(assignment: Assignment) -> Any:
        match assignment.task_id:
            case "final":
                raise TaskError("no such file", retryable=False)
            case "output":
                return object()
            case "cancel":
                raise asyncio.CancelledError if not plain else RuntimeError("cancel")
        raise ZeroDivisionError("x" * 5_000)

    async def refuse_later(assignment: Assignment) -> Any:
        return refuse(assignment)

    handler = refuse if plain else refuse_later
    names = ("final", "output", "cancel", "crash")
    async with AgentHost(bus, [Agent("a", ("r",), handler, capacity=10)], name="h"):
        await ask(bus, *(task(name) for name in names))
        got = {c.data["task"]: c.data for c in await answered(bus, 4, "FailTask")}
        await until(lambda: settled(bus))

    assert not got["final"]["retryable"]
    assert got["final"]["error"] == "no such file"
    assert not got["output"]["retryable"]
    assert got["cancel"]["retryable"]
    assert got["crash"]["retryable"]
    assert got["crash"]["error"].startswith("ZeroDivisionError: xxx")
    assert len(got["crash"]["error"]) <= 1_000


async def test_what_is_no_task_is_counted_and_taken_off(bus: Bus) -> None:
    key = tasks_key("default", "r")
    await bus.append({key: [b"\xff", b"{}", b""]})
    await bus.redis.xadd(key, {"other": "field"})
    await ask(bus, task("good"))
    async with AgentHost(bus, [Agent("a", ("r",), lambda _: None)], name="h") as host:
        await answered(bus, 1)
        await until(lambda: settled(bus))

    assert host.counts.refused == 4


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


async def test_what_does_not_finish_in_time_stays_pending(bus: Bus) -> None:
    gate = Gate()
    host = AgentHost(bus, [Agent("a", ("r",), gate)], name="h")
    host.start()
    await ask(bus, task("t"))
    await until(lambda: gate.running == 1)
    before = monotonic()
    await host.stop(grace_s=0.1)

    assert monotonic() - before < 1.5  # an idle or full reader does not hold it up
    assert gate.running == 0
    assert await answers(bus, "CompleteTask") == []
    pending: Any = await bus.redis.xpending(tasks_key("default", "r"), "agents")
    assert pending["pending"] == 1


async def test_answers_are_kept_while_redis_refuses_them_and_no_more_is_taken(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "OUTBOX_ENTRIES_MAX", 20)
    sent = bus.redis.evalsha

    async def refuse(*_: Any) -> None:
        raise RedisError("OOM command not allowed")

    agent = Agent("a", ("r",), lambda _: None, capacity=5)
    async with AgentHost(bus, [agent], name="h") as host:
        await ask(bus, task("first"))
        await answered(bus, 1)
        await ask(bus, *(task(f"t{n}") for n in range(500)))
        monkeypatch.setattr(bus.redis, "evalsha", refuse)
        await until(lambda: host._outbox.full)
        done = host.counts.completed
        await asyncio.sleep(0.1)
        assert host.counts.completed == done < 500
        monkeypatch.setattr(bus.redis, "evalsha", sent)
        got = await answered(bus, 501)
        await until(lambda: settled(bus))

    assert len({c.id for c in got}) == 501


async def test_a_reply_that_is_lost_loses_no_task(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An XREADGROUP was carried out and its reply did not arrive: the tasks are its own."""
    execute, lost = bus.redis.execute_command, 0

    async def lossy(*arguments: Any, **options: Any) -> Any:
        nonlocal lost
        reply = await execute(*arguments, **options)  # type: ignore[no-untyped-call]
        if arguments[0] == b"XREADGROUP" and reply and any(reply.values()) and lost < 3:
            lost += 1
            raise RedisError("the reply was lost")
        return reply

    monkeypatch.setattr(bus.redis, "execute_command", lossy)
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


async def test_simulated_agents_serve_many_roles(bus: Bus) -> None:
    roles = [f"role-{n}" for n in range(191)]
    async with AgentHost(bus, simulated_agents(roles, 2, factor=0.01), name="h") as host:
        tasks = [task(f"t{n}", role=roles[n % 191], duration=float(n % 3)) for n in range(2_000)]
        await ask(bus, *tasks)
        got = await answered(bus, 2_000)

    assert all(c.data["output"] == {"task": c.data["task"]} for c in got)
    assert host.counts.completed == 2_000


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
