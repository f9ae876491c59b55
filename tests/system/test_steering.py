"""A hand on executions, from the command line, on a running engine (R11)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from processors.agents import Agent, Assignment, NeedInput, TaskError
from processors.commands import create_workflow, start_execution
from processors.settings import Addresses
from tests.system.engine import ROOT, Engine, engine, host, until

TIMEOUT_S = 60.0


@pytest.fixture
async def on(database: str, redis_url: str) -> AsyncIterator[Engine]:
    async with engine(Addresses(database, redis_url)) as made:
        yield made


async def orchestrator(on: Engine, *arguments: str, code: int = 0) -> Any:
    """A command with --json, as another process."""
    addresses: Addresses = on.client._addresses
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processors", *arguments, "--json"),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | addresses.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == code, said.decode() + errors.decode()
    return orjson.loads(said)


async def started(on: Engine, *tasks: dict[str, Any], **options: Any) -> str:
    """An execution of these tasks."""
    named = [{"agent_role": "worker"} | task for task in tasks]
    create = create_workflow(
        definition={"name": "steered", "agents": {"worker": {}}, "tasks": named}
    )
    await on.client.call(create)
    start = start_execution(create.root, **options)
    await on.client.call(start)
    return start.root


async def status(on: Engine, execution: str) -> tuple[str, str | None]:
    row = await on.pool.fetchrow(
        "SELECT status, reason FROM executions WHERE execution_id = $1", execution
    )
    return ("", None) if row is None else (row[0], row[1])


async def is_now(on: Engine, execution: str, wanted: str) -> str | None:
    """Wait for a status in the read model; returns its reason."""

    async def reached() -> bool:
        return (await status(on, execution))[0] == wanted

    await until(reached, f"{execution} {wanted}")
    return (await status(on, execution))[1]


def worker(doing: Any) -> list[Agent]:
    return [Agent("worker-1", ("worker",), doing, capacity=10)]


async def test_a_paused_execution_schedules_nothing_until_it_is_resumed(on):
    held = asyncio.Event()

    async def wait(task: Assignment) -> str:
        await held.wait()
        return task.task_id

    async with host(on.client._addresses, worker(wait)):
        execution = await started(on, {"task_id": "a"}, {"task_id": "b", "depends_on": ["a"]})
        said = await orchestrator(on, "pause", execution, "--reason", "lunch")
        assert said["status"] == "accepted"
        held.set()

        async def first_done() -> bool:
            return bool(
                await on.pool.fetchval(
                    "SELECT count(*) FROM tasks WHERE execution_id = $1 AND status = 'completed'",
                    execution,
                )
            )

        await until(first_done, "the task that ran")
        assert await is_now(on, execution, "paused") == "lunch"
        explained = await orchestrator(on, "explain", execution)
        assert explained["findings"][0]["cure"] == f"orchestrator resume {execution}"
        await orchestrator(on, "resume", execution)
        await is_now(on, execution, "completed")


async def test_a_signal_frees_what_waits_for_it_and_brings_its_data(on):
    heard = []

    async with host(on.client._addresses, worker(lambda task: heard.append(task.signal))):
        execution = await started(
            on, {"task_id": "plan"}, {"task_id": "publish", "wait_for": "approved"}
        )

        async def explained() -> bool:
            found = await orchestrator(on, "explain", execution)
            return any("waits for the signal approved" in f["text"] for f in found["findings"])

        await until(explained, "the explanation")
        await orchestrator(on, "signal", execution, "approved", "--data", '{"by": "ada"}')
        await is_now(on, execution, "completed")
    assert heard == [None, {"by": "ada"}]


async def test_a_task_that_asks_is_answered_and_goes_on(on):
    def review(task: Assignment) -> Any:
        if task.answer is None:
            raise NeedInput({"ship": "yes or no?"})
        return task.answer

    async with host(on.client._addresses, worker(review)):
        execution = await started(on, {"task_id": "review"})

        async def asked() -> bool:
            found = await orchestrator(on, "explain", execution)
            return any("yes or no?" in f["text"] for f in found["findings"])

        await until(asked, "the question")
        await orchestrator(on, "answer", execution, "review", '"yes"')
        await is_now(on, execution, "completed")
    row = await on.pool.fetchrow("SELECT attempt, output FROM tasks WHERE task_id = 'review'")
    assert (row["attempt"], orjson.loads(row["output"])) == (2, "yes")


async def test_a_failed_execution_goes_on_from_where_it_failed_with_another_input(on):
    ran: list[str] = []

    def convert(task: Assignment) -> Any:
        ran.append(task.task_id)
        if task.task_id == "convert" and task.input == "tiff":
            raise TaskError("no tiff here", retryable=False)
        return task.input

    async with host(on.client._addresses, worker(convert)):
        execution = await started(
            on,
            {"task_id": "scan"},
            {"task_id": "convert", "depends_on": ["scan"], "input": "tiff"},
            {"task_id": "send", "depends_on": ["convert"]},
        )
        reason = await is_now(on, execution, "failed")
        assert reason is not None
        assert "no tiff here" in reason
        explained = await orchestrator(on, "explain", execution)
        assert explained["findings"][0]["cure"] == f"orchestrator retry {execution}"
        await orchestrator(on, "retry", execution, "--task", "convert", "--input", '"png"')
        await is_now(on, execution, "completed")
    assert ran == ["scan", "convert", "convert", "send"]


async def test_a_cancelled_execution_has_ended_and_is_not_paused_any_more(on):
    execution = await started(on, {"task_id": "a"})  # nobody serves it
    found = await orchestrator(on, "explain", execution)
    assert "No live agent serves the role" in found["findings"][0]["text"]
    await orchestrator(on, "cancel", execution, "--reason", "ordered twice")
    assert await is_now(on, execution, "cancelled") == "ordered twice"
    refused = await orchestrator(on, "pause", execution, code=1)
    assert refused["code"] == "EXECUTION_ENDED"


async def test_an_execution_has_a_time_of_its_own(on):
    execution = await started(on, {"task_id": "a"}, timeout_seconds=0.3)
    reason = await is_now(on, execution, "failed")
    assert reason is not None
    assert reason.startswith("TIMED_OUT")


async def test_what_does_not_exist_is_not_explained(on):
    found = await orchestrator(on, "explain", "nothing", code=1)
    assert found["code"] == "NOT_FOUND"
