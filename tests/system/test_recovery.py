"""Faults in the middle of real runs: Redis loses all, workers are killed, replaced and restarted.

Every run ends with exactly the events that it has without faults: what is asked twice counts once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from processors import commands, partition_loading, process_manager
from processors.client import Client
from processors.settings import Addresses
from streams.chain import verify
from streams.codec import encode_command
from streams.partition import commands_key, events_key
from tests.system import checks, read_models
from tests.system.engine import (
    WORKLOADS,
    agents,
    an_id,
    completed,
    definition,
    engine,
    process,
    projected,
    until,
)
from tests.system.test_workloads_run import fold_equals_live

LIGO = WORKLOADS / "open" / "ligo-inspiral-1000.json"
SLOW = 0.001  # the longest path then takes 1.4 s
FEW = 40  # at once, so that tasks wait in Redis
LEASE_S = 0.6

WHERE = "SELECT partition FROM events WHERE type = 'ExecutionStarted'"
WHOSE = f"SELECT owner FROM cursors WHERE consumer = 'commands' AND partition = ({WHERE})"

needs_workloads = pytest.mark.skipif(not LIGO.exists(), reason=f"there is no {LIGO}")


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


async def count(client: Client, subject: str, kind: str) -> int:
    """How many such events an aggregate has."""
    query = "SELECT count(*) FROM events WHERE subject = $1 AND type = $2"
    return int(await client.pool.fetchval(query, subject, kind))


async def in_the_middle(client: Client, subject: str, tasks: int) -> None:
    """Wait until a third of the tasks are done."""

    async def third() -> bool:
        return await count(client, subject, "TaskCompleted") >= tasks // 3

    await until(third, "the middle of the run")


async def run_with(
    client: Client, document: dict[str, Any], fault: Callable[[], Awaitable[None]]
) -> None:
    """Run a workflow whose middle is hit by a fault, and check all that there is in the end."""
    creating = commands.create_workflow(definition=document)
    await client.call(creating)
    starting = commands.start_execution(creating.root)
    await client.call(starting)
    await in_the_middle(client, starting.subject, len(document["tasks"]))
    await fault()
    assert await count(client, starting.subject, "ExecutionCompleted") == 0, "void: too late"
    await completed(client.pool, [starting.root])
    history = await checks.history(client.pool)
    checks.execution(checks.by_subject(history)[starting.subject], document)
    await checks.commits(client.pool)
    for partition in range(16):
        assert (await verify(client.log, partition)).ok


@needs_workloads
async def test_redis_loses_everything_in_the_middle_of_a_thousand_tasks(
    addresses: Addresses,
) -> None:
    """F12, R14, I7, I10, I15: tasks and answers that were lost are asked again, and count once."""
    document = json.loads(LIGO.read_bytes())
    async with engine(addresses) as on, agents(addresses, document["agents"], SLOW, FEW):

        async def flush() -> None:
            await on.client.bus.redis.flushdb()

        await run_with(on.client, document, flush)
        assert on.managers.sender.asked_again > 0, "void: nothing was lost"
        await projected(on)
        await read_models.equal_the_fold(on.pool, await checks.history(on.pool))
        await fold_equals_live(on, await checks.history(on.pool))


@needs_workloads
async def test_a_worker_is_killed_in_the_middle_of_a_thousand_tasks(addresses: Addresses) -> None:
    """F1, F7, F11, I4, I5, I15: its successor goes on where the log ends."""
    document = json.loads(LIGO.read_bytes())
    roles = ("commands", "managers")
    async with Client(addresses) as client, agents(addresses, document["agents"], SLOW):
        with (
            process(addresses, roles=roles, lease_s=LEASE_S) as one,
            process(addresses, roles=roles, lease_s=LEASE_S) as other,
        ):
            living = {await asyncio.to_thread(each.ready): each for each in (one, other)}

            async def kill() -> None:
                living.pop(await client.pool.fetchval(WHOSE)).kill()

            await run_with(client, document, kill)
            [successor] = living.values()
            counts = successor.finish()
        partition = await client.pool.fetchval(WHERE)
    assert counts["commands"] > 0
    epochs = {commit["epoch"] for commit in (await commits_of(addresses))[partition]}
    assert len(epochs) > 1, "void: nobody took over"


async def commits_of(addresses: Addresses) -> dict[int, list[dict[str, Any]]]:
    async with Client(addresses) as client:
        return await checks.commits(client.pool)


async def test_who_stops_hands_over_at_once_and_the_next_one_knows_it_all(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11, F47: leases are free at once; states from snapshots are the folds; the run goes on.

    Snapshots are taken all the time, by the processor and the managers, and hardly anything stays
    in memory, so that what is needed comes from its snapshot again and again.
    """
    monkeypatch.setattr(partition_loading, "SNAPSHOT_EVENTS", 20)
    monkeypatch.setattr(partition_loading, "AGGREGATES_MAX", 2)
    monkeypatch.setattr(process_manager, "SNAPSHOT_EVENTS", 20)
    document = definition(40)
    async with agents(addresses, ["worker"], factor=0.04):
        async with engine(addresses, lease_s=60.0) as first:
            creating = commands.create_workflow(definition=document)
            await first.client.call(creating)
            starting = [
                commands.start_execution(creating.root, execution_id=an_id("run", 2))
                for _ in range(8)
            ]
            await asyncio.gather(*map(first.client.call, starting))
            for command in starting:
                await in_the_middle(first.client, command.subject, 40)
        async with Client(addresses) as client:
            free = "SELECT count(*) FROM cursors WHERE owner IS NOT NULL AND consumer !~ '@'"
            assert await client.pool.fetchval(free) == 0, "a lease was kept"
            ends = [await count(client, c.subject, "ExecutionCompleted") for c in starting]
            assert not any(ends), "void: too late"
        begun = asyncio.get_running_loop().time()
        async with engine(addresses, lease_s=60.0) as second:
            took = asyncio.get_running_loop().time() - begun
            assert took < 10.0, "a lease was waited for; else it is a fraction of a second"
            snapshots = await second.pool.fetch("SELECT DISTINCT consumer FROM snapshots")
            assert {row[0] for row in snapshots} == {"commands", "managers"}, "void"
            await completed(second.pool, [command.root for command in starting])
            history = await checks.history(second.pool)
            subjects = checks.by_subject(history)
            for command in starting:
                checks.execution(subjects[command.subject], document)
            await checks.commits(second.pool)
            await projected(second)
            await read_models.equal_the_fold(second.pool, history)
            assert second.processor.counters.refusals == 0
        monkeypatch.setattr(partition_loading, "AGGREGATES_MAX", 1_000)
        async with engine(addresses) as third:
            for command in starting:  # loads each from its snapshot and what came after
                await third.client.call(commands.cancel_execution(command.root))
            await third.client.call(
                commands.create_workflow(definition=document, workflow_id=creating.root)
            )
            assert await fold_equals_live(third, await checks.history(third.pool)) == 9


async def test_a_mirror_of_another_history_is_begun_afresh(addresses: Addresses) -> None:
    """F12, F28, I11: a database that was set up anew beside a Redis that was not."""
    partition = 6
    async with engine(addresses, ["commands"]) as on:
        foreign = [b'{"of":"another history"}'] * 5
        await on.client.bus.mirror([(p, 1, foreign) for p in range(16)])
    async with engine(addresses, ["commands"]) as on:
        said = [
            commands.register_agent(an_id("agent", partition), name="a", roles=["r"])
            for _ in range(3)
        ]
        await asyncio.gather(*map(on.client.call, said))
        await on.processor.drain()
        assert await checks.mirror(on.pool, on.client.bus.redis) == 3
        newest = [await on.client.bus.last_id(events_key(p)) for p in range(16)]
        assert newest == ["3-0" if p == partition else "0-0" for p in range(16)]
        assert on.processor.mirroring.rebuilt > 0, "void: nothing was begun afresh"


async def test_poison_among_healthy_commands_costs_only_itself(addresses: Addresses) -> None:
    """F32, I19, I20, R32: in one partition's stream, dead letters in order beside what counts."""
    partition = 4
    key = commands_key(partition)
    async with engine(addresses) as on:
        redis = on.client.bus.redis
        elsewhere = commands.register_agent(an_id("agent", 5), name="a", roles=["r"])
        poison = {
            b"\xff\xfe": "INVALID_JSON",
            b"": "INVALID_JSON",
            b"[" * 100_000: "INVALID_JSON",
            b'{"id":"x","type":"y","subject":"agent/z","data":{"a":"\\u0000"}}': "INVALID_PAYLOAD",
            b'{"id":"x","type":"y","subject":"agent/\\ud800","data":{}}': "INVALID",
            b'{"id":"x","type":"y","data":{}}': "MISSING_FIELD",
            b'{"id":"x","type":"y","subject":"agent/z","data":[]}': "INVALID_TYPE",
            encode_command(elsewhere): "WRONG_PARTITION",
        }
        said = []
        async with redis.pipeline(transaction=True) as pipe:  # one read will find them together
            for raw in poison:
                healthy = commands.register_agent(an_id("agent", partition), name="a", roles=["r"])
                said.append(healthy)
                pipe.xadd(key, {"message": raw})
                pipe.xadd(key, {"message": encode_command(healthy)})
            pipe.xadd(key, {"something": "else"})
            entries = await pipe.execute()

        async def all_handled() -> bool:
            query = (
                "SELECT stream_offset FROM cursors WHERE consumer = 'commands' AND partition = 4"
            )
            return bool(await on.pool.fetchval(query) == entries[-1].decode())

        await until(all_handled, "the end of the stream")
        letters = await on.pool.fetch(
            "SELECT * FROM dead_letters"
            " ORDER BY split_part(entry, '-', 1)::bigint, split_part(entry, '-', 2)::bigint"
        )
        assert [letter["raw"] for letter in letters] == [*poison, b""]
        assert [letter["entry"].encode() for letter in letters] == [*entries[:-1:2], entries[-1]]
        for letter, code in zip(letters, [*poison.values(), "INVALID_JSON"], strict=True):
            assert letter["reason"].startswith(code), letter["reason"]
            assert letter["source"] == key
        subjects = checks.by_subject(await checks.history(on.pool))
        assert subjects.keys() == {command.subject for command in said}
        assert on.processor.counters.dead_letters == len(letters)
