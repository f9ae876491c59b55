"""An agent that was stopped for too long meets the engine: its answer is refused, and recorded."""

from __future__ import annotations

import signal

import pytest

from processors import commands
from processors.settings import Addresses
from tests.system import checks
from tests.system.engine import completed, definition, engine, host, projected, until
from tests.system.hosts import LEASE_S, Gate, child, heir


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


async def test_the_late_answer_of_a_stopped_agent_is_refused_and_recorded(
    addresses: Addresses,
) -> None:
    """F34, F35, I7, I18: the task is another's, completes once, and no attempt was used up."""
    document, gate = definition(1, role="r"), Gate()
    async with engine(addresses) as on, child(addresses.redis_url, "stopped", LEASE_S) as stopped:
        creating = commands.create_workflow(definition=document)
        await on.client.call(creating)
        starting = commands.start_execution(creating.root)
        await on.client.call(starting)

        async def happened(kind: str, text: str = "") -> bool:
            rows = await on.pool.fetch(
                "SELECT message FROM events WHERE subject = $1 AND type = $2",
                starting.subject,
                kind,
            )
            return any(text in row["message"].decode() for row in rows)

        await until(lambda: happened("TaskStarted", "of-stopped"), "the first agent at work")
        stopped.send(signal.SIGSTOP)
        async with host(addresses, [heir(gate)], lease_s=LEASE_S):
            await until(lambda: happened("TaskTakenOver", "heir"), "the take-over")
            stopped.send(signal.SIGCONT)
            await until(lambda: happened("CommandRejected", "LATE_ANSWER"), "the refusal")
            gate.opened.set()
            await completed(on.pool, [starting.root])
        await projected(on)
        events = checks.by_subject(await checks.history(on.pool))[starting.subject]

    kinds = [event["type"] for event in events]
    assert kinds.count("TaskCompleted") == 1
    assert kinds.count("TaskScheduled") == 1, "no attempt was used up"
    (done,) = [event for event in events if event["type"] == "TaskCompleted"]
    assert (done["data"]["agent"], done["data"]["attempt"]) == ("heir", 1)
