"""What the README promises, on a running engine: one effect, one order, and Redis may vanish."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis

from processors import commands, partition_loading
from processors.agents import simulated_agents
from processors.settings import Addresses
from streams.bus import Bus
from streams.chain import verify
from streams.codec import encode_command
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.partition import COMMANDS_INBOX, commands_key, events_key, partition_of
from streams.tail import Tail
from tests.system.engine import (
    agents,
    an_id,
    completed,
    definition,
    engine,
    host,
    process,
    projected,
    until,
)

ONCE = "SELECT count(*) FROM events WHERE subject = $1"
TWICE_DONE = """
SELECT count(*) FROM (SELECT message->'data'->>'task' AS task, count(*) FROM events
    WHERE subject = $1 AND type = 'TaskCompleted' GROUP BY 1 HAVING count(*) > 1) AS doubled
"""


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


@pytest.fixture
async def bus(redis_url):
    made = Bus(redis_url)
    yield made
    await made.close()


async def replies(bus: Bus, key: str, count: int) -> list[dict]:
    """So many outcomes, in the order in which they came."""

    async def all_of_them():
        found = (await bus.read({key: "0-0"}, 100, 50)).get(key, [])
        return found if len(found) >= count else None

    return [orjson.loads(raw) for _, raw in await until(all_of_them, f"{count} outcomes")]


async def started(on, tasks: int, name: str | None = None) -> str:
    """A fresh execution of a chain; returns its id."""
    created = commands.create_workflow(definition=definition(tasks))
    await on.client.call(created)
    command = commands.start_execution(created.root, execution_id=name)
    await on.client.call(command)
    return command.root


async def test_a_command_published_three_times_has_one_effect_and_three_equal_outcomes(
    addresses, bus
):
    """R33, I4: also when the worker was another one in between."""
    command = commands.create_workflow(definition=definition())
    command.reply_to = f"replies:{uuid4()}"
    refused = commands.start_execution("no-such-workflow")
    refused.reply_to = f"replies:{uuid4()}"
    for turn in range(3):
        async with engine(addresses) as on:
            for said in (command, refused):
                key = commands_key(partition_of(said.root, 16))
                await bus.append({key: [encode_command(said)] * (2 if turn == 0 else 1)})
            outcomes = await replies(bus, command.reply_to, 2 + turn)
            refusals = await replies(bus, refused.reply_to, 2 + turn)
            assert await on.pool.fetchval(ONCE, command.subject) == 1
            assert await on.pool.fetchval(ONCE, refused.subject) == 1
    for first, *later in (outcomes, refusals):
        assert len(later) == 3
        assert all(one == first | {"repeated": True} for one in later)
    assert outcomes[0]["status"] == "accepted"
    assert refusals[0]["problem"]["code"] == "UNKNOWN_WORKFLOW"


async def test_readers_see_each_event_once_and_in_order_whatever_happens_to_the_mirror(
    addresses, bus
):
    """F12, F17, I11: trimmed, flushed, or without its scripts."""
    log = PostgresLog(addresses.database_url)
    await log.open()
    async with engine(addresses) as on, agents(addresses, ["worker"], factor=0.005):
        tail, seen = Tail(log, bus), {p: [] for p in range(16)}
        name = an_id("run", 3)
        await started(on, 150, name)
        client = Redis.from_url(addresses.redis_url)
        for harm in (
            lambda: client.xtrim(events_key(3), maxlen=0, approximate=False),
            lambda: client.delete(events_key(3)),
            lambda: client.script_flush(),
        ) * 3:
            await _read(tail, seen)
            await _progress(on.pool, seen)
            await harm()  # to what this reader has not read yet
            await _progress(on.pool, seen, 10)
        await client.aclose()
        await completed(on.pool, [name])

        async def all_seen():
            await _read(tail, seen)
            heads = {c.partition: c.position for c in await log.cursors(WRITER)}
            return all(len(seen[p]) == heads[p] for p in seen)

        await until(all_seen, "the reader at the heads")
        for positions in seen.values():
            assert positions == list(range(1, len(positions) + 1))
        assert tail.gaps > 0, "void: the reader never met a gap"
    await log.close()


async def _read(tail: Tail, seen: dict[int, list[int]]) -> None:
    found = await tail.read({p: len(positions) for p, positions in seen.items()}, 20)
    for partition, messages in found.items():
        seen[partition] += [orjson.loads(raw)["position"] for raw in messages]


async def _progress(pool, seen: dict[int, list[int]], events: int = 5) -> None:
    """Wait until the log is so many events ahead of the reader."""

    async def ahead():
        head = await pool.fetchval("SELECT max(position) FROM events WHERE partition = 3")
        return head >= len(seen[3]) + events

    await until(ahead, "progress of the run")


async def test_mirroring_twice_changes_nothing_and_another_history_begins_afresh(bus):
    """F4: idempotent by its ids; F28: never two histories in one stream."""
    messages = [b'{"n":%d}' % n for n in range(5)]
    assert await bus.mirror([(0, 1, messages)]) == [[5, 0, 0]]
    once = await bus.read({events_key(0): "0-0"}, 100, 50)
    assert await bus.mirror([(0, 1, messages)]) == [[0, 5, 0]]
    assert await bus.read({events_key(0): "0-0"}, 100, 50) == once
    assert await bus.mirror([(0, 3, [b"other", b"history"])]) == [[2, 0, 1]]
    [entries] = (await bus.read({events_key(0): "0-0"}, 100, 50)).values()
    assert entries == [("3-0", b"other"), ("4-0", b"history")]
    assert await bus.mirror([(0, 7, [b"later"])]) == [[1, 0, 1]], "a hole would stay"
    [entries] = (await bus.read({events_key(0): "0-0"}, 100, 50)).values()
    assert entries == [("7-0", b"later")]


async def test_redis_may_vanish_in_the_middle_of_a_run(addresses, bus):
    """F12, R14: tasks that were lost are asked again; each is done once."""
    wide = definition(1) | {
        "tasks": [
            {"task_id": f"t{n}", "agent_role": "worker", "metadata": {"duration": 1.0}}
            for n in range(60)
        ]
    }
    few = simulated_agents(["worker"], factor=0.05, capacity=4)  # so that tasks wait in Redis
    async with engine(addresses) as on, host(addresses, few):
        created = commands.create_workflow(definition=wide)
        await on.client.call(created)
        said = commands.start_execution(created.root)
        await on.client.call(said)
        await until(lambda: _more_than(on.pool, said.subject, 80), "a run in the middle")
        await bus.redis.flushdb()
        assert not await on.pool.fetchval(ONCE + " AND type = 'ExecutionCompleted'", said.subject)
        await completed(on.pool, [said.root])
        assert await on.pool.fetchval(TWICE_DONE, said.subject) == 0
        assert on.managers.sender.asked_again > 0, "void: the flush lost no task"
        await projected(on)


async def test_a_worker_killed_in_the_middle_of_a_run_is_succeeded(addresses):
    """F1, F11: a new worker takes the leases over and goes on."""
    async with engine(addresses) as on:
        created = commands.create_workflow(definition=definition(60))
        await on.client.call(created)
    roles = ("commands", "managers")
    with process(addresses, roles=roles, lease_s=0.6) as first:
        first.ready()
        async with agents(addresses, ["worker"], factor=0.02):
            with process(addresses, roles=roles, lease_s=0.6) as second:
                await asyncio.to_thread(second.ready)
                log = PostgresLog(addresses.database_url)
                await log.open()
                bus = Bus(addresses.redis_url)
                said = commands.start_execution(created.root)
                key = commands_key(partition_of(said.root, 16))
                await bus.append({key: [encode_command(said)]})
                await until(lambda: _more_than(log.pool, said.subject, 30), "a run in the middle")
                first.kill()
                assert not await log.pool.fetchval(
                    ONCE + " AND type = 'ExecutionCompleted'", said.subject
                )
                await completed(log.pool, [said.root])
                assert await log.pool.fetchval(TWICE_DONE, said.subject) == 0
                for partition in range(16):
                    assert (await verify(log, partition)).ok
                await bus.close()
                await log.close()


async def _more_than(pool, subject: str, events: int) -> bool:
    return await pool.fetchval(ONCE, subject) > events


async def test_any_language_publishes_to_the_inbox_and_poison_harms_nobody(addresses, bus):
    """R51, F32, I20."""
    workflow, reply = f"w-{uuid4()}", f"replies:{uuid4()}"
    said = {
        "specversion": "1.0",
        "id": f"c-{uuid4()}",
        "source": "by-hand",
        "type": "CreateWorkflow",
        "subject": f"workflow/{workflow}",
        "replyto": reply,
        "data": {"definition": definition()},
    }
    unknown = said | {"id": "c-unknown", "type": "Explode", "data": {}}
    poison = [b"\xff\xfe not json", b'{"id": 7}', b'{"a": NaN}', b"[" * 100_000]
    async with engine(addresses) as on:
        wild = commands_key(5)
        await bus.append({wild: poison, COMMANDS_INBOX: poison})
        await bus.append({COMMANDS_INBOX: [orjson.dumps(said), orjson.dumps(unknown)]})
        accepted, rejected = await replies(bus, reply, 2)
        assert (accepted["command"], accepted["status"]) == (said["id"], "accepted")
        assert rejected["problem"]["code"] == "UNKNOWN_COMMAND"
        assert await on.pool.fetchval(ONCE, said["subject"]) == 2, "the refusal is recorded too"

        async def buried():
            rows = await on.pool.fetch("SELECT source, raw, reason FROM dead_letters")
            return rows if len(rows) == 2 * len(poison) else None

        rows = await until(buried, "the dead letters")
        assert {row["source"] for row in rows} == {wild, COMMANDS_INBOX}
        assert {row["raw"] for row in rows} == set(poison)
        assert all(0 < len(row["reason"]) < 600 for row in rows)


async def test_a_commit_that_postgres_refuses_costs_one_command_only(addresses, bus):
    """F32: the one at fault is dead-lettered, its neighbours take effect."""
    async with engine(addresses) as on:
        await on.pool.execute(
            "ALTER TABLE events ADD CONSTRAINT planted CHECK (message::text NOT LIKE '%MARKED%')"
        )
        names = [an_id("agent", 9) for _ in range(21)]
        said = [
            commands.command(
                "agent",
                name,
                "RegisterAgent",
                {"name": "MARKED" if n == 10 else "well", "roles": ["r"]},
            )
            for n, name in enumerate(names)
        ]
        await bus.append({commands_key(9): [encode_command(one) for one in said]})

        async def all_but_one():
            found = await on.pool.fetchval(
                "SELECT count(DISTINCT subject) FROM events WHERE type = 'AgentRegistered'"
            )
            return found == len(names) - 1

        await until(all_but_one, "the neighbours")
        letters = await on.pool.fetch("SELECT raw FROM dead_letters")
        assert [letter["raw"] for letter in letters] == [encode_command(said[10])]
        assert await on.pool.fetchval(ONCE, said[10].subject) == 0
        assert (await verify(on.worker.log, 9)).ok
        assert on.processor.counters.refused_commits > 0


async def test_a_worker_starts_from_snapshots_where_another_stopped(addresses, monkeypatch):
    """R11: bounded recovery; the state is the one that was left, and the run goes on."""
    monkeypatch.setattr(partition_loading, "SNAPSHOT_EVENTS", 40)
    name = an_id("run", 2)
    ended = ONCE + " AND type = 'ExecutionCompleted'"
    async with agents(addresses, ["worker"], factor=0.02):
        async with engine(addresses) as on:
            await started(on, 60, name)
            subject = f"execution/{name}"
            await until(lambda: _more_than(on.pool, subject, 100), "a run in the middle")
        async with engine(addresses) as on:
            cursor = (await on.worker.log.cursors(WRITER))[2]
            assert 0 < cursor.snapshot <= cursor.position, "void: no snapshot was taken"
            assert await on.pool.fetchval(ONCE, subject) < 180 or not await on.pool.fetchval(
                ended, subject
            ), "void: it had ended before"
            await completed(on.pool, [name])
            assert await on.pool.fetchval(TWICE_DONE, subject) == 0
            assert (await verify(on.worker.log, 2)).ok
