"""What was done is undone when a workflow fails: in order, once, and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from processors import commands
from processors.agents import Agent, Assignment, TaskError
from processors.client import Client
from processors.managers import deadlines, dispatch
from processors.settings import Addresses
from streams.chain import verify
from streams.partition import tasks_key
from tests.system import checks
from tests.system.engine import engine, host, process, until
from tests.system.stories import events, happened, kinds, started, withdrawn

LEASE_S = 0.6
SOON = {"max_attempts": 2, "initial_backoff_seconds": 0.01, "max_backoff_seconds": 0.01}
ORDER = ["book", "pay", "reserve"]
"""The tasks that can be undone, in the order in which that has to happen."""


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


def trip() -> dict[str, Any]:
    """Four tasks one after the other; the last one fails, the others can be undone."""
    names = [*ORDER[::-1], "celebrate"]
    return {
        "name": "trip",
        "agents": {"clerk": {}, "cashier": {}},
        "retry_policy": SOON,
        "tasks": [
            {
                "task_id": name,
                "agent_role": "clerk",
                "depends_on": names[n - 1 : n],
                "compensation_action": {"pay": "cashier/refund"}.get(name, f"un{name}")
                if name in ORDER
                else None,
            }
            for n, name in enumerate(names)
        ],
    }


class Office:
    """Does every task but the last, and undoes what it is told to; notes what it undid."""

    def __init__(
        self, refuses: str = "", meanwhile: Callable[[str], None] = lambda task: None
    ) -> None:
        self.refuses = refuses
        self.meanwhile = meanwhile
        self.undone: list[tuple[str, str | None, Any]] = []

    def agents(self, *roles: str) -> list[Agent]:
        """One agent a role."""
        return [Agent(f"{role}-1", (role,), self.work, 10) for role in roles]

    def work(self, assignment: Assignment) -> Any:
        task = assignment.task_id
        if assignment.kind == "compensation":
            self.meanwhile(task)
            if task == self.refuses:
                raise TaskError("It is too late for that.")
            self.undone.append((task, assignment.action, assignment.output))
            return {"undone": task}
        if task == "celebrate":
            raise TaskError("Nobody came.", retryable=False)
        return {"receipt": task}


UNDONE = [
    ("book", "unbook", {"receipt": "book"}),
    ("pay", "refund", {"receipt": "pay"}),
    ("reserve", "unreserve", {"receipt": "reserve"}),
]


async def test_a_workflow_that_fails_is_undone_in_reverse_order(addresses: Addresses) -> None:
    """R31, I9: each by its own role, with what it had delivered."""
    office = Office()
    async with engine(addresses) as on, host(addresses, office.agents("clerk", "cashier")):
        root = await started(on.client, trip())
        end = await happened(on.pool, root, "ExecutionFailed")
        assert office.undone == UNDONE
        assert (end["compensated"], end["not_compensated"]) == (ORDER, [])
        assert "Nobody came" in end["reason"]
        assert (await kinds(on.pool, root)).count("ExecutionFailed") == 1
        for partition in range(16):
            assert (await verify(on.worker.log, partition)).ok


async def test_what_cannot_be_undone_is_parked_the_rest_is_undone_and_a_person_tries_again(
    addresses: Addresses,
) -> None:
    """R31, F40: the end says exactly what was undone; later it may be, and says so."""
    office = Office(refuses="pay")
    async with engine(addresses) as on, host(addresses, office.agents("clerk", "cashier")):
        root = await started(on.client, trip())
        end = await happened(on.pool, root, "ExecutionFailed")
        assert office.undone == [UNDONE[0], UNDONE[2]]
        assert (end["compensated"], end["not_compensated"]) == (["book", "reserve"], ["pay"])
        parked = await happened(on.pool, root, "CompensationParked")
        assert (parked["task"], parked["attempts"]) == ("pay", SOON["max_attempts"])
        assert "too late" in parked["error"]
        office.refuses = ""
        await on.client.call(commands.retry_compensation(root, "pay", "He called."))
        await happened(on.pool, root, "TaskCompensated", times=3)
        assert office.undone[-1] == UNDONE[1]
        assert (await kinds(on.pool, root))[-1] == "TaskCompensated", "one terminal event"


async def test_what_was_parked_can_be_undone_by_the_next_worker(addresses: Addresses) -> None:
    """R31, F7: with what the task had delivered, which nobody else remembers."""
    office = Office(refuses="pay")
    async with host(addresses, office.agents("clerk", "cashier")):
        async with engine(addresses) as on:
            root = await started(on.client, trip())
            await happened(on.pool, root, "ExecutionFailed")
        office.refuses = ""
        async with engine(addresses) as on:
            await on.client.call(commands.retry_compensation(root, "pay"))
            await happened(on.pool, root, "TaskCompensated", times=3)
            assert office.undone[-1] == UNDONE[1]


async def test_a_worker_is_killed_between_two_undoings(addresses: Addresses) -> None:
    """F40, F7, I9: its successor goes on with the next one, and nothing is undone twice."""
    roles = ("commands", "managers")
    with process(addresses, roles=roles, lease_s=LEASE_S) as old:
        await asyncio.to_thread(old.ready)

        def kill(task: str) -> None:
            if task == "pay" and old.popen.poll() is None:
                old.kill()

        async def killed() -> bool:
            return old.popen.poll() is not None

        staff = (office := Office(meanwhile=kill)).agents("clerk", "cashier")
        async with Client(addresses, actor="test") as client, host(addresses, staff):
            root = await started(client, trip())
            await until(killed, "the end of the worker")
            with process(addresses, roles=roles, lease_s=LEASE_S):
                end = await happened(client.pool, root, "ExecutionFailed")
            assert office.undone == UNDONE
            assert (end["compensated"], end["not_compensated"]) == (ORDER, [])
            story = await events(client.pool, root)
            order = [e["data"]["task"] for e in story if e["type"] == "TaskCompensated"]
            assert order == ORDER
            found = (await checks.commits(client.pool)).values()
            epochs = {commit["epoch"] for commits in found for commit in commits}
            assert len(epochs) > 1, "void: nobody took over"


async def test_redis_loses_everything_between_two_undoings(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F12, F40: what was asked of a role that had nobody yet is asked again."""
    monkeypatch.setattr(dispatch, "RECHECK_S", 0.3)
    monkeypatch.setattr(dispatch, "CONFIRM_S", 0.1)
    office = Office()
    async with engine(addresses) as on, host(addresses, office.agents("clerk")):
        root = await started(on.client, trip())
        waiting = await happened(on.pool, root, "CompensationScheduled", times=2)
        assert (waiting["task"], waiting["role"]) == ("pay", "cashier")
        bus, key = on.client.bus, tasks_key("default", "cashier")
        await until(lambda: bus.redis.xlen(key), "what is asked of the cashier")
        await bus.redis.flushdb()
        assert "ExecutionFailed" not in await kinds(on.pool, root), "void: too late"
        async with host(addresses, office.agents("cashier")):
            end = await happened(on.pool, root, "ExecutionFailed")
        assert on.managers.sender.asked_again > 0, "void: nothing was lost"
        assert office.undone == UNDONE
        assert (end["compensated"], end["not_compensated"]) == (ORDER, [])


async def test_an_undoing_that_nobody_does_is_timed_out_and_parked(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R31, R33: there is no cashier; the clerk undoes the rest."""
    monkeypatch.setattr(deadlines, "UNDO_WAIT_S", 0.0)
    monkeypatch.setattr(deadlines, "RUN_GRACE_S", 0.1)
    office, document = Office(), trip()
    for task in document["tasks"]:
        task["timeout_seconds"] = 0.3
    async with engine(addresses) as on, host(addresses, office.agents("clerk")):
        root = await started(on.client, document)
        end = await happened(on.pool, root, "ExecutionFailed")
        assert office.undone == [UNDONE[0], UNDONE[2]]
        assert (end["compensated"], end["not_compensated"]) == (["book", "reserve"], ["pay"])
        parked = await happened(on.pool, root, "CompensationParked")
        assert (parked["task"], parked["attempts"]) == ("pay", SOON["max_attempts"])
        assert parked["error"].startswith("TIMED_OUT")
        await withdrawn(on, SOON["max_attempts"])


async def test_a_cancelled_execution_is_undone_too(addresses: Addresses) -> None:
    """R31, F41: whoever cancels it twice changes nothing."""
    office = Office()
    document = trip()
    document["tasks"][-1]["agent_role"] = "nobody"
    document["agents"]["nobody"] = {}
    async with engine(addresses) as on, host(addresses, office.agents("clerk", "cashier")):
        root = await started(on.client, document)
        await happened(on.pool, root, "TaskCompleted", times=3)
        cancel = commands.cancel_execution
        await asyncio.gather(*(on.client.call(cancel(root, "enough")) for _ in range(2)))
        end = await happened(on.pool, root, "ExecutionCancelled")
        assert office.undone == UNDONE
        assert (end["compensated"], end["not_compensated"]) == (ORDER, [])
