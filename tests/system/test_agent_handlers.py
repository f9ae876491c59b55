"""What handlers do, and what becomes of it: failures, time-outs, questions, repeats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from processors.agents import (
    Agent,
    AgentHost,
    Assignment,
    NeedInput,
    TaskError,
)
from processors.agents.letters import move_letters
from streams.bus import Bus
from streams.logs.memory import MemoryLog
from streams.partition import DEAD_LETTERS, tasks_key
from tests.system.hosts import (
    Gate,
    answered,
    answers,
    ask,
    settled,
    task,
    until,
)


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
    log = MemoryLog(1)
    assert await move_letters(log, bus) == 4
    assert await bus.redis.xlen(DEAD_LETTERS) == 0
    letters = {letter.raw: letter for letter in log.dead_letters.values()}
    assert set(letters) == {b"\xff", b"{}", b""}
    assert (letters[b"{}"].kind, letters[b"{}"].source) == ("task", key)
    assert letters[b"{}"].reason.startswith("MISSING_FIELD")


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


async def test_what_needs_input_is_asked_and_goes_on_with_the_answer(bus: Bus) -> None:
    async def approve(assignment: Assignment) -> str:
        if assignment.answer is None:
            raise NeedInput({"question": "May I?"})
        return str(assignment.answer)

    agents = [
        Agent("a", ("r",), approve, capacity=5),
        Agent("b", ("plain",), lambda a: a.answer or NeedInput("again?")),
    ]
    async with AgentHost(bus, agents, name="h") as host:
        await ask(bus, task("t"), task("p", role="plain"))
        asked = {c.data["task"]: c.data for c in await answered(bus, 2, "RequestInput")}
        await ask(bus, task("t", attempt=2, answer="yes"))
        (got,) = await answered(bus, 1)
        await until(lambda: settled(bus))

    assert asked["t"]["prompt"] == {"question": "May I?"}
    assert asked["p"]["prompt"] == "again?"
    assert (got.data["output"], got.data["attempt"]) == ("yes", 2)
    assert (host.counts.asked, host.counts.failed) == (2, 0)


async def test_a_handler_sees_what_it_undoes_and_its_answers_are_the_compensations(
    bus: Bus,
) -> None:
    """R31."""

    async def undo(assignment: Assignment) -> Any:
        await asyncio.sleep(0.1)  # long enough for a task to be said to be working
        if assignment.task_id == "broken":
            raise TaskError("it is gone", retryable=False)
        return [assignment.kind, assignment.action, assignment.output]

    undone = {"kind": "compensation", "action": "refund", "output": {"paid": 5}}
    async with AgentHost(bus, [Agent("a", ("r",), undo, capacity=5)], name="h"):
        await ask(bus, task("t", **undone), task("broken", **undone))
        (got,) = await answered(bus, 1, "CompleteCompensation")
        (failed,) = await answered(bus, 1, "FailCompensation")
        await until(lambda: settled(bus))

    assert got.data["output"] == ["compensation", "refund", {"paid": 5}]
    assert (failed.data["error"], failed.data["retryable"]) == ("it is gone", False)
    assert len(await answers(bus)) == 2


async def test_garbage_and_a_result_that_is_far_too_large_fail_and_hurt_nobody(bus: Bus) -> None:
    """F37."""
    outputs: dict[str, Any] = {"large": "x" * 100_000_000, "garbage": b"\xff", "good": 1}
    async with AgentHost(bus, [Agent("a", ("r",), lambda a: outputs[a.task_id])], name="h"):
        await ask(bus, *(task(name) for name in outputs))
        failed = {c.data["task"]: c.data for c in await answered(bus, 2, "FailTask")}
        (good,) = await answered(bus, 1)
        await until(lambda: settled(bus))

    assert "100,000,002 bytes" in failed["large"]["error"]
    assert "not JSON" in failed["garbage"]["error"]
    assert not failed["large"]["retryable"]
    assert not failed["garbage"]["retryable"]
    assert good.data["output"] == 1
