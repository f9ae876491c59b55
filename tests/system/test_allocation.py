"""Who gets the work, on a running engine: chosen, failing and lost agents, and none at all."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from processors import commands
from processors.agents import Agent, AgentHost, Assignment, Handler, TaskError, register
from processors.allocation.policies import POLICIES
from processors.app import ROLES
from processors.client import Client
from processors.managers import health
from processors.settings import Addresses
from tests.system.engine import Engine, completed, engine, host, process, until
from tests.system.test_agent_processes import FOR_EVER, child

LOOK_S = 0.1
PUSHING = sorted(set(POLICIES) - {"pull"})


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


@asynccontextmanager
async def watching(addresses: Addresses, **judged: float) -> AsyncIterator[Engine]:
    """An engine that looks at its agents more often than usual."""
    async with engine(addresses) as running:
        watch = running.managers.watch
        assert watch is not None
        watch.look_s = LOOK_S
        for name, seconds in judged.items():
            setattr(watch.directory, name, seconds)
        yield running


def flow(tasks: int, allocation: str, **more: Any) -> dict[str, Any]:
    """Tasks that wait for nothing, to be given out by a policy."""
    return {
        "name": f"flow-{allocation}",
        "version": "1",
        "agents": {"worker": more.pop("role", {})},
        "tasks": [{"task_id": f"t{n}", "agent_role": "worker"} for n in range(tasks)],
        "coordination": {"allocation": allocation, **more.pop("coordination", {})},
        **more,
    }


async def start(running: Engine, document: dict[str, Any]) -> str:
    """Start one execution; returns its id."""
    create = commands.create_workflow(definition=document)
    await running.client.call(create)
    began = commands.start_execution(create.root)
    await running.client.call(began)
    return began.root


async def doers(running: Engine, execution: str) -> Counter[str]:
    """Which agents have completed how many tasks."""
    rows = await running.pool.fetch(
        "SELECT message -> 'data' ->> 'agent' FROM events"
        " WHERE subject = $1 AND type = 'TaskCompleted'",
        f"execution/{execution}",
    )
    return Counter(row[0] for row in rows)


async def agent_row(running: Engine, agent: str) -> dict[str, Any]:
    """The agent's row in the read model."""
    row = await running.pool.fetchrow("SELECT * FROM agents WHERE agent_id = $1", agent)
    return dict(row) if row is not None else {}


async def happened(running: Engine, subject: str) -> list[str]:
    """The types of what has happened to an aggregate."""
    rows = await running.pool.fetch(
        "SELECT type FROM events WHERE subject = $1 ORDER BY partition, position", subject
    )
    return [row[0] for row in rows]


async def work(_: Assignment) -> str:
    await asyncio.sleep(0.01)
    return "done"


@pytest.mark.parametrize("policy", PUSHING)
async def test_every_policy_completes_an_execution_with_the_agents_of_its_choice(
    addresses: Addresses, policy: str
) -> None:
    """R12."""
    agents = [
        Agent("cheap", ("worker",), work, 2, capabilities=("x", "y", "z"), cost=0.5),
        Agent("close", ("worker",), work, 2, capabilities=("x",), cost=2.0),
        Agent("other", ("worker",), work, 2, capabilities=("y",), cost=0.1),
    ]
    async with watching(addresses) as running, host(addresses, agents) as there:
        await register(there.bus, agents, 16)
        execution = await start(running, flow(40, policy, role={"capabilities": ["x"]}))
        await completed(running.pool, [execution])
        did = await doers(running, execution)
    assert did["other"] == 0, "it lacks what is needed"
    assert did.total() == 40
    if policy in ("least_loaded", "round_robin"):
        assert min(did["cheap"], did["close"]) >= 10
    elif policy == "lowest_cost":
        assert did["cheap"] >= 20
    else:
        assert did["close"] >= 20


@pytest.mark.parametrize("policy", ["pull", "least_loaded"])
async def test_a_failing_agents_circuit_opens_and_closes_again_when_it_works(
    addresses: Addresses, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R30: the work goes to the others meanwhile, and a trial lets the agent back in."""
    monkeypatch.setattr(health, "COOLDOWN_S", 1.0)
    broken = True

    async def fail_at_first(assignment: Assignment) -> str:
        if broken:
            raise TaskError("broken")
        return await work(assignment)

    agents = [
        Agent("bad", ("worker",), fail_at_first, 4),
        Agent("good", ("worker",), work, 4),
    ]
    retry = {"max_attempts": 20, "initial_backoff_seconds": 0.1}
    async with watching(addresses) as running, host(addresses, agents) as there:
        await register(there.bus, agents, 16)
        first = await start(running, flow(100, policy, retry_policy=retry))

        async def is_open() -> bool:
            return "CircuitOpened" in await happened(running, "agent/bad")

        await until(is_open, "the open circuit")
        await completed(running.pool, [first])
        assert (await doers(running, first))["bad"] == 0
        reason = (await agent_row(running, "bad")).get("reason", "")
        broken = False
        executions = [first]

        async def is_closed() -> bool:
            execution = await start(running, flow(20, policy, retry_policy=retry))
            await completed(running.pool, [execution])
            executions.append(execution)
            return "CircuitClosed" in await happened(running, "agent/bad")

        await until(is_closed, "the closed circuit")
        story = [e for e in await happened(running, "agent/bad") if e.startswith("Circuit")]
        assert story[-3:] == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed"]
        assert not [e for e in await happened(running, "agent/good") if e.startswith("Circuit")]

        async def has_work_again() -> bool:
            execution = await start(running, flow(40, policy, retry_policy=retry))
            await completed(running.pool, [execution])
            return (await doers(running, execution))["bad"] > 0

        await until(has_work_again, "work for the agent")
    assert "broken" in reason or not reason


async def test_a_drained_agent_gets_nothing_new(addresses: Addresses) -> None:
    """R12, R30: whether tasks are pulled or pushed, until it is registered again."""
    agents = [Agent("tired", ("worker",), work, 4), Agent("fresh", ("worker",), work, 4)]
    async with watching(addresses) as running, host(addresses, agents) as there:
        await register(there.bus, agents, 16)
        await running.client.call(commands.drain_agent("tired", "a new version comes"))
        await until(lambda: _held_back(there, "tired"), "the closed gate")
        for policy in ("pull", "least_loaded"):
            execution = await start(running, flow(20, policy))
            await completed(running.pool, [execution])
            assert await doers(running, execution) == {"fresh": 20}
        await register(there.bus, agents, 16)

        async def works_again() -> bool:
            execution = await start(running, flow(20, "pull"))
            await completed(running.pool, [execution])
            return (await doers(running, execution))["tired"] > 0

        await until(works_again, "work for the agent")


async def _held_back(there: AgentHost, agent: str) -> bool:
    return there._desk.gates().get(agent) == 0


async def test_a_role_without_an_agent_waits_and_completes_when_one_comes(
    addresses: Addresses,
) -> None:
    """R30, F38: graceful degradation."""
    async with watching(addresses) as running:
        executions = [await start(running, flow(5, policy)) for policy in ("pull", "least_loaded")]
        pushes = running.managers.sender.pushes
        assert pushes is not None

        async def waits() -> bool:
            return pushes.waiting == 5

        await until(waits, "the waiting tasks")
        async with host(addresses, [Agent("late", ("worker",), work, 2)]):
            await completed(running.pool, executions)
        assert pushes.waiting == 0


async def test_agents_without_a_host_are_lost_and_return_with_it(addresses: Addresses) -> None:
    """R30: a quick restart is nobody's business; a long absence is said once."""
    agents = [Agent("ann", ("worker",), work)]
    async with watching(addresses, lost_s=2.0, silent_s=1.5) as running:
        async with host(addresses, agents) as there:
            await register(there.bus, agents, 16)

            async def known() -> dict[str, Any]:
                return await agent_row(running, "ann")

            await until(known, "the agent")
        async with host(addresses, agents):
            execution = await start(running, flow(3, "least_loaded"))
            await completed(running.pool, [execution])

        async def lost() -> bool:
            return bool((await known())["lost"])

        await until(lost, "the loss")
        assert "no sign of life" in (await known())["reason"]
        async with host(addresses, agents):

            async def back() -> bool:
                return not await lost()

            await until(back, "the return")
        said = await happened(running, "agent/ann")
        assert said[:3] == ["AgentRegistered", "AgentLost", "AgentReturned"]


async def test_who_is_there_for_nobody_within_the_bound_ends_the_wait(addresses: Addresses) -> None:
    """R30, R33: the time in the queue is over, and nothing waits in memory any more."""
    async with watching(addresses) as running:
        bound = {"queue_timeout_seconds": 1.0}
        executions = [
            await start(running, flow(3, policy, coordination=bound))
            for policy in ("pull", "least_loaded")
        ]

        async def failed() -> bool:
            said = [await happened(running, f"execution/{one}") for one in executions]
            return all("ExecutionFailed" in one for one in said)

        await until(failed, "the end of the wait")
        for one in executions:
            assert "TaskTimedOut" in await happened(running, f"execution/{one}")
        pushes = running.managers.sender.pushes
        assert pushes is not None

        async def empty() -> bool:
            return pushes.waiting == 0

        await until(empty, "an empty queue")


async def attempts(running: Engine, execution: str) -> Counter[tuple[str, int, str]]:
    """What happened to the execution's tasks: type, attempt, agent."""
    rows = await running.pool.fetch(
        "SELECT type, (message -> 'data' ->> 'attempt')::int, message -> 'data' ->> 'agent'"
        " FROM events WHERE subject = $1 AND type LIKE 'Task%'",
        f"execution/{execution}",
    )
    return Counter(tuple(row) for row in rows)


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


def slow(handler: Handler) -> Agent:
    """An agent with room for two."""
    return Agent("slow", ("worker",), handler, 2)
