"""Every message that a running engine sends or takes is as the AsyncAPI document says (R51)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from processors import commands
from processors.agents import Agent, NeedInput, TaskError
from processors.agents.outbox import Outbox
from processors.client import Rejected
from processors.settings import Addresses
from streams.bus import Bus
from streams.partition import events_key
from tests.described import check
from tests.system.engine import engine, host, until
from tests.system.stories import happened, started

DOCUMENT = {
    "name": "all sorts",
    "version": "1",
    "agents": {"worker": {}, "absent": {}},
    "coordination": {"queue_timeout_seconds": 0.3},
    "tasks": [
        {
            "task_id": "booked",
            "agent_role": "worker",
            "input": {"n": 1},
            "compensation_action": "cancel",
        },
        {"task_id": "asked", "agent_role": "worker", "depends_on": ["booked"]},
        {"task_id": "awaited", "agent_role": "worker", "wait_for": "go", "depends_on": ["asked"]},
        {
            "task_id": "slow",
            "agent_role": "absent",
            "retry_policy": {"max_attempts": 1},
            "depends_on": ["awaited"],
        },
    ],
}


@pytest.fixture
def seen(monkeypatch):
    """The messages by name, and by kind of place, of everything that goes over the bus."""
    names: Counter[str] = Counter()
    append, mirror, publish, send = Bus.append, Bus.mirror, Bus.publish, Outbox.send

    def note(messages: Mapping[str, Sequence[bytes]]) -> None:
        names.update(check(key, raw) for key, some in messages.items() for raw in some)

    async def appending(bus, messages):
        note(messages)
        return await append(bus, messages)

    async def mirroring(bus, shares):
        note({events_key(partition): some for partition, _, some in shares})
        return await mirror(bus, shares)

    async def publishing(bus, messages):
        note(messages)
        await publish(bus, messages)

    def sending(outbox, stream, message):  # agents have their own way
        key = stream if isinstance(stream, str) else stream.decode()
        if key.startswith("commands"):
            note({key: [message]})
        return send(outbox, stream, message)

    monkeypatch.setattr(Outbox, "send", sending)
    monkeypatch.setattr(Bus, "append", appending)
    monkeypatch.setattr(Bus, "mirror", mirroring)
    monkeypatch.setattr(Bus, "publish", publishing)
    return names


async def work(assignment):
    """What the tasks of the document do."""
    match assignment.task_id:
        case "booked" if assignment.kind == "task" and assignment.attempt == 1:
            raise TaskError("Busy: try again")
        case "asked" if assignment.answer is None:
            raise NeedInput("which?")
    return {"done": assignment.task_id}


async def test_what_is_sent_is_what_is_described(database, redis_url, seen):
    addresses = Addresses(database, redis_url)
    agent = Agent("ada", ("worker",), work, capacity=4)
    async with engine(addresses) as on, host(addresses, [agent]):
        execution = await started(on.client, DOCUMENT, input={"x": 1})
        await happened(on.pool, execution, "InputRequested")
        await on.client.call(commands.provide_input(execution, "asked", "this"))
        await on.client.call(commands.pause_execution(execution, "tea"))
        await on.client.call(commands.resume_execution(execution))
        await on.client.call(commands.signal_execution(execution, "go", {"by": "me"}))
        await happened(on.pool, execution, "ExecutionFailed")
        with pytest.raises(Rejected):
            await on.client.call(commands.cancel_execution("nobody"))

        registered = commands.register_agent("eve", name="Eve", roles=["worker"], card={"v": 1})
        await on.client.call(registered)

        async def all_of_them():
            return seen.keys() >= {
                *("StartExecution", "ExecutionStarted", "TaskScheduled", "TaskStarted"),
                *("FailTask", "TaskFailed", "RequestInput", "InputRequested", "InputProvided"),
                *("ExecutionPaused", "SignalReceived", "TimeOutTask", "TaskTimedOut"),
                *("CompensationStarted", "TaskCompensated", "ExecutionFailed"),
                *("CommandRejected", "Outcome", "Task", "Withdrawn", "AgentRegistered"),
            }

        await until(all_of_them, "every kind")
