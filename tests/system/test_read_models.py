"""The read models against a real database: events cut, repeated, lost, handed over, caught up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors import projector as module
from processors.projector import TOPIC, Moved, Projector
from projections import PROJECTIONS
from projections.projection import Projection, Statement, columns
from streams.leases import Leases
from streams.logs.postgres import PostgresLog
from streams.message import Event
from tests.histories import PARTITIONS, History, plain
from tests.system.outages import own_servers
from tests.system.read_models import equal_the_fold

Events = dict[int, list[Event]]

PLANT = """
INSERT INTO planted AS p SELECT * FROM unnest($1::text[], $2::int[])
ON CONFLICT (subject) DO UPDATE SET events = p.events + excluded.events
"""


def plant(events: Sequence[Event]) -> list[Statement]:
    """How many events each aggregate has: wrong as soon as one is applied twice."""
    counts: dict[str, int] = {}
    for event in events:
        counts[event.subject] = counts.get(event.subject, 0) + 1
    return [(PLANT, columns(list(counts.items())))]


PLANTED = Projection("planted", 1, ("planted",), frozenset(), plant)


class Lossy(Projector):
    """A projector whose commits sometimes succeed without an answer."""

    losing = False

    async def _apply(self, fresh: Any) -> None:
        await super()._apply(fresh)
        if Lossy.losing:
            raise ConnectionResetError("after the commit")


@pytest.fixture
async def log(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresLog]:
    monkeypatch.setattr(module, "RETRY_S", 0)
    found = PostgresLog(database)
    await found.open()
    await found.pool.execute("CREATE TABLE planted (subject text PRIMARY KEY, events int)")
    yield found
    await found.close()


async def empty(log: PostgresLog) -> None:
    for table in ("workflows", "executions", "tasks", "agents", "histories", "planted", "cursors"):
        await log.pool.execute(f"DELETE FROM {table}")


async def started(log: PostgresLog, *more: Projection) -> Lossy:
    """A projector that has taken every partition, from whoever had it."""
    leases = Leases(log, TOPIC, "me", lease_s=0)
    await leases.round()
    found = Lossy((*PROJECTIONS, *more), log, leases, PARTITIONS)
    for partition in range(PARTITIONS):
        await found.open(partition)
    return found


async def feed(projector: Projector, events: Events, to: dict[int, int] | None = None) -> None:
    """What a feed does: open what was closed, and hand over what follows."""
    for partition in events:
        if partition not in projector.positions:
            await projector.open(partition)
    ends = to or {p: len(log) for p, log in events.items()}
    batch = {p: log[projector.positions[p] : ends[p]] for p, log in events.items()}
    await projector.handle({p: part for p, part in batch.items() if part})


def until(events: Events, ends: dict[int, int]) -> Events:
    return {p: log[: ends[p]] for p, log in events.items()}


async def positions(log: PostgresLog, consumer: str = TOPIC) -> list[int]:
    return [c.position for c in (await log.cursors(consumer))[:PARTITIONS]]


async def tables(log: PostgresLog) -> dict[str, list[Any]]:
    names = ("workflows", "executions", "tasks", "agents", "histories", "planted")
    return {
        name: [tuple(r) for r in await log.pool.fetch(f"SELECT * FROM {name} ORDER BY 1, 2")]
        for name in names
    }


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_cut_gives_the_rows_of_one_batch_and_of_a_fold(log, seed):
    """I13, with batches repeated, overlapping, unanswered, and handed over on the way."""
    history = History(seed)
    events, chance = history.events, random.Random(seed)
    await empty(log)
    await feed(await started(log), events)
    await equal_the_fold(log.pool, plain(events))
    whole = await tables(log)

    await empty(log)
    projector = await started(log)
    done = dict.fromkeys(events, 0)
    while any(done[p] < len(events[p]) for p in events):
        if chance.random() < 0.1:
            projector = await started(log)  # the one before died, or has not heard of it
        batch = {}
        for p in chance.sample(sorted(events), chance.randint(1, PARTITIONS)):
            if p not in projector.positions:
                await projector.open(p)
            first = max(0, done[p] - chance.choice((0, 0, 0, 1, 5)))
            batch[p] = events[p][first : done[p] + chance.choice((1, 2, 5, 30))]
        Lossy.losing = chance.random() < 0.1
        await projector.handle({p: part for p, part in batch.items() if part})
        Lossy.losing = False
        done = dict(enumerate(await positions(log)))
    assert await tables(log) == whole


async def test_whose_lease_was_taken_over_writes_nothing(log):
    events = History(1).events
    older = await started(log)
    half = {p: len(log_) // 2 for p, log_ in events.items()}
    await feed(older, events, half)
    newer = await started(log)
    before = await tables(log)
    with pytest.raises(Moved):
        await older._apply({p: log_[half[p] :] for p, log_ in events.items()})
    await feed(older, events)
    assert await tables(log) == before
    assert older.positions == {}
    await feed(newer, events)
    await equal_the_fold(log.pool, plain(events))


async def test_a_commit_without_an_answer_is_not_applied_twice(log):
    events = History(2).events
    projector = await started(log)
    before = dict(projector._recorded)
    Lossy.losing = True
    await feed(projector, events)
    Lossy.losing = False
    assert projector.positions == {}
    after = await tables(log)
    projector._recorded = before  # it has not looked again, and still believes in the old place
    projector.positions = dict.fromkeys(events, 0)
    await feed(projector, events)
    assert projector.positions == {}
    await feed(projector, events)
    assert projector.positions == {p: len(log_) for p, log_ in events.items()}
    assert await tables(log) == after
    await equal_the_fold(log.pool, plain(events))


async def test_a_connection_lost_inside_a_batch_leaves_nothing_of_it(log):
    """F20: and parks nothing, since it is not about what was to be written."""

    def crash(_: Sequence[Event]) -> list[Statement]:
        return [("SELECT pg_terminate_backend(pg_backend_pid())", ())]

    events = History(3).events
    half = {p: len(log_) // 2 for p, log_ in events.items()}
    await feed(await started(log), events, half)
    before = await tables(log)
    faulty = await started(log, Projection("faulty", 1, (), frozenset(), crash))
    faulty.positions = dict(half)  # as if it had been there from the beginning
    await feed(faulty, events)
    assert faulty.positions == {}, "opened again, and read anew"
    assert await tables(log) == before
    assert await log.pool.fetchval("SELECT count(*) FROM parked_keys") == 0
    assert await positions(log) == list(half.values())
    await feed(await started(log), events)
    await equal_the_fold(log.pool, plain(events))


async def test_a_batch_from_before_a_lease_was_lost_and_found_again_is_not_applied(log):
    """Its place is taken before the first wait: by then another may have gone on and stopped."""
    events = History(4).events
    half = {p: len(log_) // 2 for p, log_ in events.items()}
    slow = await started(log)
    acquire, waits = log.pool.acquire, []

    async def meanwhile() -> None:
        await feed(await started(log), events)
        slow.leases.held.clear()
        await slow.leases.round()
        for partition in events:
            await slow.open(partition)

    class Waiting:
        async def __aenter__(self) -> Any:
            if not waits:
                waits.append(True)
                await meanwhile()
            self.inner = acquire()
            return await self.inner.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self.inner.__aexit__(*error)

    class Pool:
        acquire = staticmethod(Waiting)

    class Log:
        pool = Pool
        cursors = log.cursors

    slow.log = Log()
    await feed(slow, events, half)
    slow.log = log
    await equal_the_fold(log.pool, plain(events))
    assert await positions(log) == [len(log_) for log_ in events.values()]


async def test_what_a_crash_of_the_server_takes_back_is_made_again(monkeypatch):
    """I13: nobody waits for the disk with a batch, and rows are lost with their cursors only."""
    monkeypatch.setattr(module, "RETRY_S", 0)
    events = History(5, executions=5).events
    async with own_servers() as servers:
        log = PostgresLog(servers.database_url)
        await log.open()
        projector = await started(log)
        await feed(projector, events, {p: len(log_) // 2 for p, log_ in events.items()})
        await asyncio.to_thread(servers.postgres.kill)
        await asyncio.to_thread(servers.postgres.start)
        ends = [len(log_) for log_ in events.values()]
        while await positions(log) != ends:
            await feed(projector, events)
        await equal_the_fold(log.pool, plain(events))
        assert await log.pool.fetchval("SHOW synchronous_commit") == "on"
        await log.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_new_projection_catches_up_and_the_others_stay_where_they_are(log, seed):
    events = History(10 + seed, executions=5).events
    most = {p: len(log_) * 2 // 3 for p, log_ in events.items()}
    await feed(await started(log), events, most)
    ahead = await tables(log)
    names = [projection.consumer for projection in PROJECTIONS]
    projector = await started(log, PLANTED)
    assert projector.positions == dict.fromkeys(events, 0)
    while any(projector.positions[p] < most[p] for p in events):
        step = {p: min(most[p], projector.positions[p] + 11) for p in events}
        Lossy.losing = projector.positions[0] % 3 == 1
        await feed(projector, events, step)
        Lossy.losing = False
        for name in names:
            assert await positions(log, name) == list(most.values())
        assert {**await tables(log), "planted": []} == ahead
        projector = await started(log, PLANTED)  # and a crash after each of its batches
    await feed(projector, events)
    await equal_the_fold(log.pool, plain(events))
    assert {tuple(row) for row in await log.pool.fetch("SELECT * FROM planted")} == {
        (subject, sum(e.subject == subject for part in events.values() for e in part))
        for subject in {e.subject for part in events.values() for e in part}
    }
    everyone = [*names, PLANTED.consumer, TOPIC]
    assert {tuple(await positions(log, n)) for n in everyone} == {
        tuple(len(log_) for log_ in events.values())
    }
