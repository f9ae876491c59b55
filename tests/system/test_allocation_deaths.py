"""What becomes of chosen agents' tasks when hosts, workers and Redis die."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from processors import commands
from processors.agents import Agent, Assignment, Handler
from processors.app import ROLES
from processors.client import Client
from processors.settings import Addresses
from tests.system.allocating import attempts, flow, happened, start, watching, work
from tests.system.engine import Engine, completed, host, process, until
from tests.system.test_agent_processes import FOR_EVER, child


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


async def all_begun(running: Engine, execution: str, tasks: int) -> None:
    """Wait until the log says that so many tasks have begun."""

    async def begun() -> bool:
        said = await happened(running, f"execution/{execution}")
        return said.count("TaskStarted") == tasks

    await until(begun, "the tasks to begin")


async def test_the_tasks_of_a_killed_host_are_done_by_another_in_the_same_attempt(
    addresses: Addresses,
) -> None:
    """R30, F34, I18: an agent's death uses up nobody's attempts."""
    document = flow(20, "least_loaded", retry_policy={"max_attempts": 1})
    serving_r(document)
    async with watching(addresses, lost_s=2.0, silent_s=1.5) as running:
        async with child(addresses.redis_url, "killed", FOR_EVER) as killed:
            execution = await start(running, document)
            await all_begun(running, execution, 20)
            async with host(addresses, [Agent("heir", ("r",), work, 50)]):
                killed.send(signal.SIGKILL)
                await completed(running.pool, [execution])
        found = await attempts(running, execution)
        assert running.managers.sender.asked_again == 20, "void: nothing was given again"
    assert found["TaskTakenOver", 1, "heir"] == found["TaskCompleted", 1, "heir"] == 20
    assert {attempt for _, attempt, _ in found} == {1}
    assert not [kind for kind, _, _ in found if kind in ("TaskFailed", "TaskTimedOut")]


async def test_what_a_stopped_host_answers_when_it_goes_on_is_refused(
    addresses: Addresses,
) -> None:
    """R30, F35, I7: its tasks were given to another one, whose delivery is higher."""
    document = flow(5, "round_robin")
    serving_r(document)
    async with watching(addresses, lost_s=2.0, silent_s=1.5) as running:
        async with child(addresses.redis_url, "stopped", 2.0) as stopped:
            execution = await start(running, document)
            await all_begun(running, execution, 5)
            stopped.send(signal.SIGSTOP)
            async with host(addresses, [Agent("heir", ("r",), work, 50)]):
                await completed(running.pool, [execution])
                stopped.send(signal.SIGCONT)

                async def refused() -> bool:
                    return await rejections(running, execution, "of-stopped") >= 5

                await until(refused, "the late answers")
        found = await attempts(running, execution)
    assert found["TaskCompleted", 1, "heir"] == 5
    assert not [who for kind, _, who in found if kind == "TaskCompleted" and who != "heir"]


def serving_r(document: dict[str, Any]) -> None:
    """The tasks are for the role of the host in the child process."""
    document["agents"] = {"r": {}}
    for task in document["tasks"]:
        task["agent_role"] = "r"


async def rejections(running: Engine, execution: str, actor: str) -> int:
    """How many answers of an agent were refused and recorded."""
    return int(
        await running.pool.fetchval(
            "SELECT count(*) FROM events WHERE subject = $1 AND type = 'CommandRejected'"
            " AND message ->> 'actor' = $2",
            f"execution/{execution}",
            actor,
        )
    )


async def test_what_a_killed_worker_had_given_out_and_kept_waiting_goes_on_with_the_next(
    addresses: Addresses,
) -> None:
    """R30, F11, I18: what was pushed is found where it lies, what waited is asked for anew."""
    opened = asyncio.Event()

    async def wait(_: Assignment) -> str:
        await opened.wait()
        return "done"

    document = flow(5, "least_loaded", retry_policy={"max_attempts": 1})
    async with Client(addresses, actor="test") as client, host(addresses, [slow(wait)]) as there:
        with process(addresses, roles=ROLES, lease_s=1.0) as worker:
            worker.ready()
            create = commands.create_workflow(definition=document)
            await client.call(create)
            began = commands.start_execution(create.root)
            await client.call(began)

            async def both_run() -> bool:
                return there.in_hand == 2

            await until(both_run, "two tasks at work")
            worker.kill()
        async with watching(addresses) as running:
            opened.set()
            await completed(running.pool, [began.root])
            found = await attempts(running, began.root)
    assert found["TaskCompleted", 1, "slow"] == 5
    assert {attempt for _, attempt, _ in found} == {1}


async def test_a_flush_of_redis_loses_no_pushed_task(addresses: Addresses) -> None:
    """R30, F12, I18: what is at work is answered, what waits here goes when the hosts are back."""
    opened = asyncio.Event()

    async def wait(_: Assignment) -> str:
        await opened.wait()
        return "done"

    document = flow(6, "round_robin", retry_policy={"max_attempts": 1})
    async with watching(addresses) as running, host(addresses, [slow(wait)]) as there:
        execution = await start(running, document)

        async def both_run() -> bool:
            return there.in_hand == 2

        await until(both_run, "two tasks at work")
        await there.bus.redis.flushdb()
        opened.set()
        await completed(running.pool, [execution])
        found = await attempts(running, execution)
    assert found["TaskCompleted", 1, "slow"] == 6
    assert {attempt for _, attempt, _ in found} == {1}


def slow(handler: Handler) -> Agent:
    """An agent with room for two."""
    return Agent("slow", ("worker",), handler, 2)
