"""Who gets the work, on a running engine: chosen, failing and lost agents, and none at all."""

from __future__ import annotations

from typing import Any

import pytest

from processors import commands
from processors.agents import Agent, AgentHost, Assignment, TaskError, register
from processors.allocation.policies import POLICIES
from processors.managers import health
from processors.settings import Addresses
from tests.system.allocating import agent_row, doers, flow, happened, start, watching, work
from tests.system.engine import completed, host, until

PUSHING = sorted(set(POLICIES) - {"pull"})


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


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
    return there._desk.placing.gates().get(agent) == 0


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
