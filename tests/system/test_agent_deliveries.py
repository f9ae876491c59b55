"""How often a task is handed out, what that says to the engine, and when it is too often."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from processors.agents import Agent, AgentHost, Assignment, encode_assignment
from processors.agents import desk as desk_module
from processors.agents.letters import LETTER_BYTES_MAX, decode_letter, encode_letter, move_letters
from streams.bus import Bus
from streams.logs.memory import MemoryLog
from streams.partition import DEAD_LETTERS, FIELD, tasks_key
from tests.system.hosts import Gate, answered, answers, ask, kill, settled, task, until


async def test_a_task_that_kills_its_hosts_is_failed_and_buried(
    bus: Bus, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F33 for tasks: what was handed out too often is done by nobody any more."""
    monkeypatch.setattr(desk_module, "DELIVERIES_MAX", 3)
    await ask(bus, task("t"))
    for _ in range(3):
        gate = Gate()
        crashing = AgentHost(redis_url, [Agent("a", ("r",), gate)], name="h")
        crashing.start()
        await until(lambda gate=gate: gate.running == 1)
        await kill(crashing)
        await crashing.bus.close()
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h") as host:
        (got,) = await answered(bus, 1, "FailTask")
        await until(lambda: settled(bus))

    assert gate.seen == []
    assert host.counts.poisoned == 1
    reason = "POISON: It was delivered 4 times and never answered."
    assert (got.data["error"], got.data["retryable"], got.data["delivery"]) == (reason, False, 4)
    log = MemoryLog(1)
    assert await move_letters(log, bus) == 1
    (letter,) = log.dead_letters.values()
    assert (letter.kind, letter.source, letter.reason) == (
        "task",
        tasks_key("default", "r"),
        reason,
    )
    assert letter.raw == encode_assignment(task("t"))


async def test_what_was_asked_again_counts_above_what_was_heard(bus: Bus) -> None:
    """I7: the base of an assignment is added to how often its entry was handed out."""
    async with AgentHost(bus, [Agent("a", ("r",), lambda _: None)], name="h"):
        await ask(bus, task("first"), task("again", delivery=256))
        got = {c.data["task"]: c.data for c in await answered(bus, 2)}

    assert "delivery" not in got["first"]
    assert got["again"]["delivery"] == 257


async def test_an_answer_is_given_again_for_a_later_delivery_without_doing_the_task(
    bus: Bus,
) -> None:
    """I7: under another command id, since the engine may have refused the first as late."""
    runs: list[str] = []
    agent = Agent("a", ("r",), lambda a: runs.append(a.task_id))
    async with AgentHost(bus, [agent], name="h"):
        await ask(bus, task("t"))
        await answered(bus, 1)
        await ask(bus, task("t", delivery=512))
        first, second = await answered(bus, 2)
        await ask(bus, task("t", delivery=256))  # older than what was answered last
        _, _, third = await answered(bus, 3)

    assert runs == ["t"]
    assert second.data == first.data | {"delivery": 513}
    assert second.id != first.id
    assert third == second


async def test_a_task_in_hand_answers_for_its_latest_delivery(bus: Bus) -> None:
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=5)], name="h") as host:
        await ask(bus, task("t"))
        await until(lambda: gate.running == 1)
        await ask(bus, task("t", delivery=256))
        await until(lambda: host.counts.repeated == 1)
        gate.opened.set()
        (got,) = await answered(bus, 1)
        await until(lambda: settled(bus))

    assert got.data["delivery"] == 257
    assert gate.seen == ["t"]


async def test_dead_letters_are_bounded_and_moved_a_portion_at_a_time(bus: Bus) -> None:
    """I16, I20: whatever cannot be read keeps nobody, and is stored once."""
    key = tasks_key("default", "r")
    await bus.append({key: [b"{%d" % n for n in range(500)]})
    async with AgentHost(bus, [Agent("a", ("r",), str, capacity=1_000)], name="h") as host:
        await until(lambda: host.counts.refused == 500)
        await until(lambda: settled(bus))
    log = MemoryLog(1)
    repeated: Any = await bus.redis.xrange(DEAD_LETTERS, count=1)
    moved = [await move_letters(log, bus) for _ in range(4)]
    await bus.append({DEAD_LETTERS: [repeated[0][1][FIELD], b"garbage"]})
    await move_letters(log, bus)

    assert moved == [200, 200, 100, 0]
    assert len(log.dead_letters) == 501
    assert [x.raw for x in log.dead_letters.values() if x.source == DEAD_LETTERS] == [b"garbage"]


def test_a_letter_keeps_so_many_bytes_and_says_so() -> None:
    letter = decode_letter(encode_letter(b"s", b"1-0", "why", b"x" * 100_000), "")

    assert letter.raw == b"x" * LETTER_BYTES_MAX
    assert letter.reason == "why (the first 65,536 of 100,000 bytes are kept)"


async def test_a_task_that_was_withdrawn_is_stopped_and_skipped(bus: Bus) -> None:
    """Nobody waits for the answer: the work is not paid for any longer, running or waiting."""
    gate = Gate()
    async with AgentHost(bus, [Agent("a", ("r",), gate, capacity=2)], name="h") as host:
        await host._notices.listening.wait()
        await ask(bus, *(task(f"t{n}") for n in range(3)))
        await until(lambda: gate.running == 2)
        for name in ("t0", "t2"):
            await bus.redis.publish("withdrawn:{default/r}", task(name).message_id)
        await until(lambda: gate.running == 1)
        await ask(bus, task("t3"))
        await until(lambda: gate.running == 2)
        await ask(bus, task("t0"))  # asked again by somebody who does not know
        gate.opened.set()
        await answered(bus, 2)
        await until(lambda: settled(bus))

    assert gate.seen == ["t0", "t1", "t3"]
    assert {c.data["task"] for c in await answers(bus, "CompleteTask")} == {"t1", "t3"}
    assert {c.type for c in await answers(bus)} <= {"StartTask", "CompleteTask"}
    assert host.counts.withdrawn == 3


async def test_withdrawals_are_heard_again_after_the_connection_was_lost(bus: Bus) -> None:
    """An agent that would work for ever is stopped by the engine's word (F37)."""
    gate = Gate()
    endless = task("t", timeout_seconds=None)
    async with AgentHost(bus, [Agent("a", ("r",), gate)], name="h") as host:
        await host._notices.listening.wait()
        await ask(bus, endless)
        await until(lambda: gate.running == 1)
        await bus.redis.execute_command(b"CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        await until(lambda: not host._notices.listening.is_set())
        await asyncio.wait_for(host._notices.listening.wait(), 15)
        await bus.redis.publish("withdrawn:{default/r}", b"\xff")
        await bus.redis.publish("withdrawn:{default/r}", endless.message_id)
        await until(lambda: gate.running == 0)
        await until(lambda: settled(bus))
        assert host.in_hand == 0

    assert await answers(bus, "CompleteTask") == []


async def test_the_handler_sees_what_the_engine_said(bus: Bus) -> None:
    seen: list[Assignment] = []
    said = task("t", signal={"approved": True}, answer=[1], delivery=256, agent="somebody")
    async with AgentHost(bus, [Agent("a", ("r",), seen.append)], name="h"):
        await ask(bus, said)
        await answered(bus, 1)

    assert seen == [replace(said)]
