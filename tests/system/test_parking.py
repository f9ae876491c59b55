"""Parked keys: what one read model cannot apply stops one aggregate there, and nothing else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from processors import parking
from processors.letter_carrier import LetterCarrier
from processors.projector import TOPIC, Projector
from projections import PROJECTIONS
from projections.dead_letters import DEAD_LETTERS
from projections.executions import EXECUTIONS
from projections.histories import HISTORIES
from projections.projection import Projection, Statement
from projections.tasks import TASKS
from streams.codec import decode_command
from streams.leases import Leases
from streams.logs.postgres import PostgresLog
from streams.message import Event
from streams.partition import commands_key, partition_of
from tests.fake_bus import FakeBus
from tests.histories import PARTITIONS, History

TABLES = ("workflows", "executions", "tasks", "agents", "histories")
INSERT = "INSERT INTO events (partition, position, type, subject, message) VALUES ($1,$2,$3,$4,$5)"
DECIDED = "UPDATE dead_letters SET status = $1, due = true WHERE kind = 'event' AND status = 'open'"


@pytest.fixture
async def log(database: str) -> AsyncIterator[PostgresLog]:
    made = PostgresLog(database)
    await made.open()
    yield made
    await made.close()


async def store(log: PostgresLog, events: dict[int, list[Event]]) -> None:
    """Put a history into the log's table."""
    rows = []
    for partition, some in events.items():
        for e in some:
            said = {
                "partition": partition,
                "position": e.position,
                "type": e.type,
                "subject": e.subject,
                "version": e.version,
                "time": e.time,
                "tenant": e.tenant,
                "actor": e.actor,
                "data": e.data,
            }
            rows.append((partition, e.position, e.type, e.subject, orjson.dumps(said)))
    await log.pool.executemany(INSERT, rows)


async def projector(log: PostgresLog, projections: Sequence[Projection]) -> Projector:
    """A projector that holds the partitions of the history, under a new epoch."""
    leases = Leases(log, TOPIC, "me")
    seen = (await log.cursors(TOPIC))[:PARTITIONS]
    leases.held = {cursor.partition: cursor for cursor in await log.take(seen, "me")}
    made = Projector(projections, log, leases, PARTITIONS)
    for partition in leases.held:
        await made.open(partition)
    return made


async def run(on: Projector, events: dict[int, list[Event]], chance: random.Random) -> None:
    """Hand the history over in batches of any size."""
    left = {partition: list(some) for partition, some in events.items()}
    while any(left.values()):
        batch = {}
        for partition, some in left.items():
            size = chance.randint(0, 9)
            if some[:size]:
                batch[partition], left[partition] = some[:size], some[size:]
        await on.handle(batch)


async def rows(log: PostgresLog) -> dict[str, list[tuple[Any, ...]]]:
    """All read models, whole."""
    found = {}
    for table in TABLES:
        some = [tuple(row) for row in await log.pool.fetch(f"SELECT * FROM {table}")]
        found[table] = sorted(some, key=repr)
    return found


async def forget(log: PostgresLog) -> None:
    """The read models as if they had never been."""
    for table in (*TABLES, "cursors", "parked_keys", "dead_letters"):
        await log.pool.execute(f"DELETE FROM {table}")


async def decide(log: PostgresLog, status: str) -> None:
    """What a person's decision on every open letter leaves in the table."""
    await log.pool.execute(DECIDED, status)
    bus: Any = None  # a decision about an event needs no Redis
    while await LetterCarrier(log, bus).round():
        pass


def breaking(projection: Projection, broken: set[tuple[int, int]]) -> Projection:
    """The same read model, with a bug in some events as long as they are in the set."""

    def apply(events: Sequence[Event]) -> list[Statement]:
        for event in events:
            if (event.partition, event.position) in broken:
                raise KeyError(event.type)
        return projection.apply(events)

    return replace(projection, apply=apply)


@pytest.mark.parametrize("seed", range(5))
async def test_parked_and_retried_the_rows_are_as_if_nothing_had_ever_failed(log, seed):
    """I13, R32, F46: whatever fails, however it is batched, and over a restart."""
    chance = random.Random(seed)
    events = History(seed, executions=5).events
    await store(log, events)
    on = await projector(log, PROJECTIONS)
    await run(on, events, chance)
    expected = await rows(log)
    await on.drain()
    await forget(log)

    heard_of = EXECUTIONS.types | TASKS.types
    broken = {
        (e.partition, e.position)
        for some in events.values()
        for e in chance.sample([e for e in some if e.type in heard_of], 3)
    }
    faulty = [breaking(one, broken) if one in (EXECUTIONS, TASKS) else one for one in PROJECTIONS]
    on = await projector(log, faulty)
    await run(on, events, chance)
    assert {p: on.positions[p] for p in events} == {p: len(some) for p, some in events.items()}
    parked = await log.pool.fetch("SELECT consumer, subject FROM parked_keys")
    assert parked, "void: nothing was parked"
    assert {row["consumer"] for row in parked} <= {EXECUTIONS.consumer, TASKS.consumer}
    found = await rows(log)
    stopped = {row["subject"].partition("/")[2] for row in parked}
    for table in TABLES:
        mine = [row for row in expected[table] if row[0] not in stopped]
        assert [row for row in found[table] if row[0] not in stopped] == mine, "the others go on"

    await decide(log, "retried")
    await on.follow_again()  # in vain: the bug is still there
    again = await log.pool.fetch("SELECT consumer, subject FROM parked_keys")
    assert sorted(map(tuple, again)) == sorted(map(tuple, parked))
    await on.drain()

    broken.clear()
    on = await projector(log, faulty)
    await decide(log, "retried")
    assert await on.follow_again() == len(parked)
    assert await rows(log) == expected
    assert await log.pool.fetchval("SELECT count(*) FROM parked_keys") == 0
    open_ = "SELECT count(*) FROM dead_letters WHERE status = 'open' AND kind = 'event'"
    assert await log.pool.fetchval(open_) == 0
    await on.drain()


async def test_what_the_database_refuses_parks_its_own_key_only(log):
    """R32, F32: found in savepoints; the batch's others, and the cursor, are in the same commit."""
    events = History(3, executions=4).events
    await store(log, events)
    await log.pool.execute(
        "ALTER TABLE tasks ADD CONSTRAINT planted"
        " CHECK (execution_id <> 'run-1' OR status = 'scheduled')"
    )
    on = await projector(log, PROJECTIONS)
    await run(on, events, random.Random(2))
    [key] = await log.pool.fetch("SELECT * FROM parked_keys")
    assert (key["consumer"], key["subject"]) == (TASKS.consumer, "execution/run-1")
    [letter] = await log.pool.fetch("SELECT * FROM dead_letters")
    failing = events[key["partition"]][key["position"] - 1]
    assert failing.type in TASKS.types - {"TaskScheduled"}
    assert (letter["kind"], letter["source"]) == ("event", TASKS.consumer)
    assert (letter["subject"], letter["tenant"]) == ("execution/run-1", failing.tenant)
    assert "planted" in letter["reason"]
    assert orjson.loads(letter["raw"])["position"] == failing.position
    assert on.positions[key["partition"]] == len(events[key["partition"]])
    others = "SELECT count(*) FROM tasks WHERE execution_id <> 'run-1' AND status = 'completed'"
    assert await log.pool.fetchval(others) > 0
    await log.pool.execute("ALTER TABLE tasks DROP CONSTRAINT planted")
    await decide(log, "retried")
    assert await on.follow_again() == 1
    ended = "SELECT count(*) FROM tasks WHERE execution_id = 'run-1' AND status <> 'scheduled'"
    assert await log.pool.fetchval(ended) > 0
    await on.drain()


async def test_discarded_the_one_event_is_left_out_and_the_rest_read_on(log):
    """R32: a decision, and recorded as one."""
    events = History(3, executions=2).events
    await store(log, events)
    failing = next(e for some in events.values() for e in some if e.type == "TaskScheduled")
    broken = {(failing.partition, failing.position)}
    on = await projector(
        log, [breaking(one, broken) if one is TASKS else one for one in PROJECTIONS]
    )
    await run(on, events, random.Random(1))
    [key] = await log.pool.fetch("SELECT * FROM parked_keys")
    assert key["position"] == failing.position
    await decide(log, "discarded")
    assert await on.follow_again() == 1, "with the bug still there"
    later = [e for e in events[failing.partition] if e.subject == failing.subject]
    told = {e.data["task"] for e in later if e.type == "TaskScheduled" and e is not failing}
    known = await log.pool.fetch(
        "SELECT task_id FROM tasks WHERE execution_id = $1 AND agent_role <> ''", failing.root
    )
    assert {row["task_id"] for row in known} == told
    await on.drain()


async def test_what_could_not_be_undone_is_a_letter_and_tried_again_by_a_command(log):
    """R31, R32: the event is the letter; said again it stays one, and its retry has a fixed id."""
    data = {"task": "t0", "attempts": 3, "error": "the bank is closed"}
    parked = Event(
        0, 1, "CompensationParked", "execution", "run-0", 9, "2026-01-02T03:04:05Z", "acme", "ann",
        None, None, data,
    )  # fmt: skip
    await store(log, {0: [parked]})
    on = await projector(log, [DEAD_LETTERS, HISTORIES])
    await on.handle({0: [parked]})
    [row] = await log.pool.fetch("SELECT * FROM dead_letters")
    assert (row["kind"], row["tenant"], row["subject"]) == ("task", "acme", "execution/run-0")
    assert "the bank is closed" in row["reason"]
    for text, arguments in DEAD_LETTERS.apply([parked]):
        await log.pool.execute(text, *arguments)
    await log.pool.execute("UPDATE dead_letters SET decided_why = 'open again', decided_by = 'ann'")
    await log.pool.execute("UPDATE dead_letters SET status = 'retried', due = true, tries = 1")
    bus = FakeBus()
    carrier: Any = LetterCarrier(log, bus)  # type: ignore[arg-type]
    assert await carrier.round() == 1
    [raw] = bus.messages(commands_key(partition_of("run-0", 16)))
    said = decode_command(raw)
    assert (said.type, said.subject, said.tenant) == (
        "RetryCompensation", "execution/run-0", "acme"
    )  # fmt: skip
    assert said.data == {"task": "t0", "reason": "open again"}
    assert (said.id, said.actor) == (f"letter:{row['dead_letter_id']}:1", "ann")
    assert await carrier.round() == 0
    await on.drain()


async def test_old_code_stops_at_an_event_that_it_does_not_know_for_that_aggregate_only(
    log, monkeypatch
):
    """F42, I13: after the upgrade the rows are as if the new code had always run."""
    some = (History(seed, executions=4).events for seed in range(100))
    events = next(one for one in some if "ExecutionPaused" in str(one))
    await store(log, events)
    on = await projector(log, PROJECTIONS)
    await run(on, events, random.Random(5))
    expected = await rows(log)
    await on.drain()
    await forget(log)

    monkeypatch.setattr("processors.projector.KNOWN", parking.KNOWN - {"ExecutionPaused"})
    monkeypatch.setattr("processors.parking.KNOWN", parking.KNOWN - {"ExecutionPaused"})
    paused = {e.subject for some in events.values() for e in some if e.type == "ExecutionPaused"}
    assert paused, "void: nothing unknown was met"
    old = [
        replace(one, types=one.types - {"ExecutionPaused"}) if one.types else one
        for one in PROJECTIONS
    ]
    on = await projector(log, old)
    await run(on, events, random.Random(6))
    parked = await log.pool.fetch("SELECT consumer, subject FROM parked_keys")
    assert {tuple(row) for row in parked} == {
        (one.consumer, subject) for one in (EXECUTIONS, TASKS, DEAD_LETTERS) for subject in paused
    }
    reasons = await log.pool.fetch("SELECT reason FROM dead_letters")
    assert all(row["reason"].startswith("UNKNOWN_EVENT: ExecutionPaused") for row in reasons)
    await on.drain()

    monkeypatch.undo()
    on = await projector(log, PROJECTIONS)
    await decide(log, "retried")
    assert await on.follow_again() == len(parked)
    assert await rows(log) == expected
    await on.drain()
