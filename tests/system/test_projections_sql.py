"""The read models' SQL: keys are looked up under any plan; the trail is whole while they lag."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from projections import PROJECTIONS
from projections.executions import EXECUTIONS
from projections.histories import HISTORIES
from projections.tasks import TASKS
from streams.logs.postgres import connect
from streams.message import Event
from tests.histories import History

EVENTS = 40_000  # planners read small tables whole, and rightly so
LOGS = 16
EACH = 100  # events of one subject

FILL = """
INSERT INTO events (partition, position, type, subject, message)
SELECT p, n, 'PhaseEntered', 'execution/' || p || '-' || (n - 1) / $3, '{"data": 1, "version": 1}'
FROM generate_series(0, $1 - 1) AS p, generate_series(1, $2) AS n
"""

HEARD = """
INSERT INTO histories (subject, partition, first_position, last_position)
SELECT subject, min(partition), min(position), max(position)
FROM events WHERE position <= $1 GROUP BY subject
"""

CURSORS = """
INSERT INTO cursors (consumer, partition, position)
SELECT $1, partition, max(position) FROM events WHERE position <= $2 GROUP BY partition
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    found = await connect(database)
    yield found
    await found.close()


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", ()) for node in nodes(child)]


async def explained(on: Any, query: str, *arguments: Any) -> list[dict[str, Any]]:
    [found] = orjson.loads(await on.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments))
    return nodes(found["Plan"])


def batches(events: list[Event], size: int) -> list[list[Event]]:
    return [events[start : start + size] for start in range(0, len(events), size)]


@pytest.mark.parametrize("projection", [EXECUTIONS, TASKS, HISTORIES], ids=lambda p: p.name)
async def test_a_plan_from_when_a_table_was_empty_reads_no_table(pool, projection):
    """Plans are cached: what read an empty table whole would read the full one for each batch."""
    seen = set()
    async with pool.acquire() as connection:
        for events in History(7).events.values():
            for batch in batches(events, 3):
                wanted = [e for e in batch if not projection.types or e.type in projection.types]
                for text, arguments in projection.apply(wanted) if wanted else ():
                    seen.add(text)
                    for node in await explained(connection, text, *arguments):
                        assert node.get("Relation Name") is None or node["Operation"] == "Insert"
    assert len(seen) == (1 if projection is HISTORIES else 2)


async def test_what_is_not_in_the_batch_is_not_written_over(pool):
    """The upserts carry stand-ins for what they do not know; none of them is ever seen."""
    for seed in range(5):
        for table in ("executions", "tasks"):
            await pool.execute(f"DELETE FROM {table}")
        chance = random.Random(seed)
        for events in History(seed).events.values():
            while events:
                batch, events = events[: (size := chance.randint(1, 4))], events[size:]
                for projection in (EXECUTIONS, TASKS):
                    wanted = [e for e in batch if e.type in projection.types]
                    for text, arguments in projection.apply(wanted) if wanted else ():
                        await pool.execute(text, *arguments)
        assert await pool.fetchval("SELECT count(*) FROM executions") > 0
        for table, wrong in (
            ("executions", "'' IN (tenant, workflow_id, workflow_name, status, current_phase)"),
            ("executions", "revision = 0 OR phases = 0 OR tasks_total = 0 OR first_position = 0"),
            ("tasks", "'' IN (tenant, agent_role, status) OR phase = 0"),
            ("tasks", "NOT isfinite(scheduled_at)"),
        ):
            found = await pool.fetchval(f"SELECT count(*) FROM {table} WHERE {wrong}")
            assert found == 0, (table, wrong)


@pytest.mark.parametrize("heard", [0, 950, EVENTS // LOGS])
async def test_the_trail_is_whole_however_far_the_projector_lags(pool, heard):
    await pool.execute(FILL, LOGS, EVENTS // LOGS, EACH)
    await pool.execute(CURSORS, "commands", EVENTS)
    if heard:  # else it has never run: there is not even a cursor
        await pool.execute(HEARD, heard)
        await pool.execute(CURSORS, HISTORIES.consumer, heard)
    assert await pool.fetchval("SELECT count(*) FROM audit") == EVENTS
    both = "SELECT count(DISTINCT (partition, position)), count(*) FROM audit WHERE subject = $1"
    for subject in ("execution/7-0", "execution/7-9", "execution/8-11"):
        assert tuple(await pool.fetchrow(both, subject)) == (EACH, EACH)
    for table in ("events", "histories", "cursors"):
        await pool.execute(f"ANALYZE {table}")
    for where, arguments in (
        ("= $1", "execution/7-9"),
        ("= ANY($1)", ["execution/7-9", "execution/8-9"]),
    ):
        query = f"SELECT * FROM audit WHERE subject {where} ORDER BY position"
        scans = {
            node["Node Type"]
            for node in await explained(pool, query, arguments)
            if node.get("Relation Name") == "events"
        }
        assert scans
        assert scans <= {"Index Scan", "Bitmap Heap Scan"}


async def test_the_audit_view_follows_the_present_version_of_histories(pool):
    text = await pool.fetchval("SELECT pg_get_viewdef('audit_of_commands'::regclass)")
    assert HISTORIES in PROJECTIONS
    assert f"'{HISTORIES.consumer}'" in text


async def test_few_executions_are_found_among_many_completed(pool):
    await pool.execute("""
        INSERT INTO executions (execution_id, tenant, workflow_id, workflow_name, revision, status,
            current_phase, phases, tasks_total, started_at, updated_at, partition, first_position,
            last_position)
        SELECT n, 't', 'w', 'w', 1, CASE n % 1000 WHEN 0 THEN 'failed' ELSE 'completed' END, '1/1',
            1, 1, now() + n * interval '1 s', now(), 0, n, n
        FROM generate_series(1, 20000) AS n""")
    await pool.execute("ANALYZE executions")
    query = "SELECT * FROM executions WHERE tenant = 't' AND status = 'failed' ORDER BY started_at"
    used = {node.get("Index Name") for node in await explained(pool, query)}
    assert "executions_not_completed" in used
