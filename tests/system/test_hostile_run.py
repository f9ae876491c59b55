"""Every hostile workload through one engine that serves on: its verdict, its time, its traces."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import process_time
from typing import Any

import orjson
import pytest

from processors import commands
from processors.client import Rejected
from processors.settings import Addresses
from streams.codec import COMMAND_BYTES_MAX, encode_command
from streams.log import RAW_BYTES_MAX
from streams.partition import commands_key, partition_of
from tests.servers import Endpoints, empty_redis, fresh_database
from tests.system import checks
from tests.system.engine import Engine, agents, an_id, completed, definition, engine, until
from tests.unit.test_workloads import HOSTILE, OUR_VERDICT, WORKLOADS, read

PARTITION = 11

pytestmark = pytest.mark.skipif(not HOSTILE, reason=f"the workloads are not at {WORKLOADS}")


@pytest.fixture(scope="module")
async def on(servers: Endpoints) -> AsyncIterator[Engine]:
    """One engine for all files, with agents, warmed up by one healthy workflow."""
    async with (
        fresh_database(servers.database_url) as database_url,
        empty_redis(servers.redis_url) as redis_url,
    ):
        addresses = Addresses(database_url, redis_url)
        async with engine(addresses) as made, agents(addresses, ["worker"]):
            await serves_on(made)
            yield made


async def serves_on(on: Engine) -> None:
    """A healthy workflow and its execution, both in the partition of the hostile ones, complete."""
    creating = commands.create_workflow(
        definition=definition(), workflow_id=an_id("healthy", PARTITION)
    )
    await on.client.call(creating)
    await execute(on, creating.root, definition())


async def execute(on: Engine, workflow_id: str, document: dict[str, Any]) -> None:
    starting = commands.start_execution(workflow_id, execution_id=an_id("run", PARTITION))
    await on.client.call(starting)
    await completed(on.pool, [starting.root])
    await checks.commits(on.pool)
    checks.execution(await events_of(on, f"execution/{starting.root}"), document)


async def events_of(on: Engine, subject: str) -> list[dict[str, Any]]:
    rows = await on.pool.fetch(
        "SELECT message::text FROM events WHERE subject = $1 ORDER BY partition, position", subject
    )
    return [json.loads(row[0]) for row in rows]


@pytest.mark.parametrize("expected", HOSTILE, ids=lambda each: each["file"])
async def test_a_hostile_file_gets_its_verdict_in_time_and_harms_nobody(
    expected: dict[str, Any], on: Engine
) -> None:
    """R4, F32, I19, I20: answered in time, nothing stored of what is refused, the rest goes on."""
    raw = read(f"hostile/{expected['file']}")
    creating = commands.create_workflow(
        source=raw.decode(), workflow_id=an_id("hostile", PARTITION)
    )
    begun = process_time()  # of the engine too, which runs in this process
    problem = None
    try:
        await on.client.call(creating)
    except Rejected as rejected:
        problem = rejected.problem
    assert process_time() - begun < expected["max_plan_seconds"]
    if expected["verdict"] == "accept":
        assert problem is None
        await execute(on, creating.root, json.loads(raw))
    else:
        assert problem is not None
        assert problem["code"] == OUR_VERDICT.get(expected["file"], expected["code"])
        assert len(problem["detail"]) < 1000
        assert len(orjson.dumps(problem)) < 5000
        if "cycle" in expected:
            assert problem["cycle"] == expected["cycle"]
        if "edge" in expected:
            assert set(expected["edge"]) <= set(problem["cycle"])
        await nothing_came_of_it(on, creating.root, problem, published=len(raw) < COMMAND_BYTES_MAX)
    await serves_on(on)


async def nothing_came_of_it(
    on: Engine, workflow_id: str, problem: dict[str, Any], published: bool
) -> None:
    """The log knows the attempt and nothing else, and nothing can be run."""
    events = await events_of(on, f"workflow/{workflow_id}")
    assert [event["type"] for event in events] == ["CommandRejected"] * published
    for event in events:
        assert event["data"] | problem == event["data"], "the event says what the answer said"
    starting = commands.start_execution(workflow_id, execution_id=an_id("run", PARTITION))
    with pytest.raises(Rejected) as refused:
        await on.client.call(starting)
    assert refused.value.problem["code"] == "UNKNOWN_WORKFLOW"
    started = await events_of(on, f"execution/{starting.root}")
    assert [event["type"] for event in started] == ["CommandRejected"]
    query = "SELECT count(*) FROM definitions WHERE workflow_id = $1"
    assert await on.pool.fetchval(query, workflow_id) == 0


@pytest.mark.parametrize(
    "expected", [e for e in HOSTILE if e["bytes"] > COMMAND_BYTES_MAX], ids=lambda e: e["file"]
)
async def test_a_command_too_large_for_any_client_is_a_dead_letter(
    expected: dict[str, Any], on: Engine
) -> None:
    """R32, F32: put into the stream all the same, it is kept with its reason, in time."""
    raw = read(f"hostile/{expected['file']}")
    creating = commands.create_workflow(
        source=raw.decode(), workflow_id=an_id("hostile", PARTITION)
    )
    assert partition_of(creating.root, 16) == PARTITION
    message, key = encode_command(creating), commands_key(PARTITION)
    begun = process_time()  # of the engine too, which runs in this process
    [entry] = (await on.client.bus.append({key: [message]}))[key]

    async def buried() -> Any:
        return await on.pool.fetchrow(
            "SELECT reason, raw, raw_bytes FROM dead_letters WHERE source = $1 AND entry = $2",
            key,
            entry.decode(),
        )

    letter = await until(buried)
    assert process_time() - begun < expected["max_plan_seconds"]
    assert letter["reason"].startswith("TOO_LARGE: ")
    assert letter["raw"] == message[:RAW_BYTES_MAX]
    assert letter["raw_bytes"] == len(message)
    assert await events_of(on, f"workflow/{creating.root}") == []
    await serves_on(on)
