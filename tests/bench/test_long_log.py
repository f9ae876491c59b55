"""A long log made of copies: it is whole, it folds, and read models are rebuilt from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from processors.bench import servers as servers_
from processors.bench.copies import append_copies, template
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.flat import compared, rounds_of, wide
from processors.bench.flat import measure as measure_flat
from processors.bench.peers import one_round
from processors.bench.projection import measure as measure_projection
from processors.bench.projection import rebuild
from processors.bench.replay import fold, verify
from processors.bench.replay import measure as measure_replay
from processors.bench.works import BY_NAME
from processors.cli.exits import Failed
from processors.settings import Addresses
from streams.logs.postgres import PostgresLog
from tests.bench.conftest import PARTITIONS
from tests.servers import Endpoints, empty_redis

COPIES = 2_000


@dataclass(slots=True)
class Long:
    """A log with copies behind one real execution."""

    place: servers_.Place
    addresses: Addresses
    log: PostgresLog
    execution: str
    copied: int


@pytest.fixture(scope="module")
async def long(servers: Endpoints) -> AsyncIterator[Long]:
    """One execution by real processes, which have ended, and copies of it."""
    work = BY_NAME["w4"]
    async with (
        empty_redis(servers.redis_url) as redis_url,
        servers_.target(
            place := servers_.Place(Addresses(servers.database_url, redis_url)),
            PARTITIONS,
            existing=False,
        ) as addresses,
    ):
        async with deployed(addresses, How(agents=2)) as engine:
            driver = await engine.driver(work.document(engine.role))
            done = await one_round(engine, place, driver, work, 1)
        log = PostgresLog(addresses.database_url, 2)
        await log.open()
        execution = done.trips[0].execution_id
        copied = await append_copies(log, await template(log, execution), COPIES)
        yield Long(place, addresses, log, execution, copied)
        await log.close()


async def test_copies_make_a_log_that_is_whole(long: Long) -> None:
    _, verified = await verify(long.log, long.place)  # refuses what is damaged
    stored = await long.log.pool.fetchval("SELECT count(*) FROM events")
    assert verified == stored > long.copied >= COPIES
    ids = await long.log.pool.fetchval("SELECT count(DISTINCT message->>'id') FROM events")
    assert ids == stored


async def test_every_copy_folds_to_its_end(long: Long) -> None:
    rows = await long.log.pool.fetch(
        "SELECT subject FROM events WHERE type = 'ExecutionCompleted' ORDER BY random() LIMIT 3"
    )
    events = len(await template(long.log, long.execution))
    for row in rows:
        _, count = await fold(long.log, long.place, row["subject"].partition("/")[2])
        assert count == events


async def test_read_models_are_rebuilt_from_all_of_it(long: Long) -> None:
    await rebuild(long.addresses, long.place, long.log)
    models = "SELECT count(*), sum(tasks_completed) FROM executions WHERE status = 'completed'"
    executions, tasks = await long.log.pool.fetchrow(models)  # type: ignore[misc]
    ended = "SELECT count(*) FROM events WHERE type = $1"
    assert executions == await long.log.pool.fetchval(ended, "ExecutionCompleted")
    assert tasks == await long.log.pool.fetchval(ended, "TaskCompleted")


async def test_what_runs_is_no_template(engine: Deployed) -> None:
    with pytest.raises(Failed, match="no template"):
        await template(engine.client.log, "nobody")
    with pytest.raises(Failed, match="no template"):
        await template(engine.client.log, engine.role)


async def test_costs_of_two_sizes_are_compared_by_the_task(
    engine: Deployed, place: servers_.Place
) -> None:
    small = await rounds_of(engine, place, wide(5, 10), 10, 1)
    large = await rounds_of(engine, place, wide(50, 1), 1, 1)
    assert small[0].tasks_in_all == large[0].tasks_in_all == 50
    *_, ratio = compared("small", small, "large", large)
    assert ratio.name == "large, to small"
    assert ratio.median is not None
    assert ratio.median > 0


@pytest.mark.slow
async def test_whole_measurements_have_their_figures(servers: Endpoints) -> None:
    place = servers_.Place(Addresses(servers.database_url, await empty_redis(servers.redis_url)))
    reports = [
        await measure_replay(place, 30, 500, 1, PARTITIONS),
        await measure_projection(place, 60_000, 20, 1, PARTITIONS),
        await measure_flat(place, 500, 200, 20, 1, PARTITIONS),
    ]
    names = [{figure.name for figure in report.figures} for report in reports]
    assert {"fold", "verify"} <= names[0]
    assert {"rebuild", "keeping up, most behind"} <= names[1]
    assert {"500 events before, to log empty", "1 of 200 tasks, to 100 of 2 tasks"} <= names[2]
