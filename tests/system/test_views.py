"""The views for people: the audit trail by index ranges, and what coordination costs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from streams.codec import encode_event
from streams.logs.postgres import connect
from streams.message import Command

EVENTS = 24_960
SUBJECTS = 208

FILL = """
INSERT INTO events (partition, position, type, subject, message)
SELECT n % 16, n / 16 + 1, 'PhaseEntered', 'execution/run-' || n % $2,
    json_build_object('time', '2026-01-02T03:04:05.5Z', 'data', json_build_object('phase', n))
FROM generate_series(0, $1 - 1) AS n
"""

SPAN = """
INSERT INTO histories (subject, partition, first_position, last_position)
SELECT subject, min(partition), min(position), max(position) FROM events GROUP BY subject
"""

EXECUTION = """
INSERT INTO executions (execution_id, tenant, workflow_id, workflow_name, revision, status,
    current_phase, phases, tasks_total, started_at, completed_at, updated_at, partition,
    first_position, last_position, tasks_completed)
VALUES ('x', 'default', 'w', 'flow', 1, 'completed', '1/1', 1, 4, $1, $2, $3, 0, 1, 9, 4)
"""

TASK = """
INSERT INTO tasks (execution_id, task_id, tenant, agent_role, status, attempt, agent_id, phase,
    priority, scheduled_at, started_at, completed_at)
VALUES ('x', $1, 'default', 'r', 'completed', 1, $2, 1, 0, $3, $4, $5)
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    found = await connect(database)
    yield found
    await found.close()


@pytest.fixture
async def filled(pool: asyncpg.Pool) -> asyncpg.Pool:
    await pool.execute(FILL, EVENTS, SUBJECTS)
    await pool.execute(SPAN)
    await pool.execute("ANALYZE events")
    await pool.execute("ANALYZE histories")
    return pool


def nodes(plan: dict[str, Any]) -> list[tuple[str, str]]:
    own = [(plan["Node Type"], plan.get("Relation Name", ""))]
    return own + [node for child in plan.get("Plans", ()) for node in nodes(child)]


TRAILS = (
    ("subject = $1", ("execution/run-7",)),
    ("subject = $1 ORDER BY position DESC LIMIT 10", ("execution/run-7",)),
    ("subject = ANY($1)", (["execution/run-7", "execution/run-8"],)),
    ("subject = $1 AND time > $2", ("execution/run-7", datetime(2026, 1, 1, tzinfo=UTC))),
)


async def test_one_aggregates_trail_is_a_range_of_the_log(filled):
    for where, arguments in TRAILS:
        query = f"SELECT * FROM audit WHERE {where}"
        explained = json.loads(await filled.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments))
        touched = [kind for kind, table in nodes(explained[0]["Plan"]) if table == "events"]
        assert touched, where
        assert set(touched) <= {"Index Scan", "Bitmap Heap Scan"}, where
        assert await filled.fetch(query, *arguments)


async def test_the_trail_is_whole_and_says_who_what_when_and_why(filled):
    found = await filled.fetch(
        "SELECT subject, count(*) FROM audit WHERE subject LIKE 'execution/run-1%' GROUP BY 1"
    )
    assert {row[1] for row in found} == {EVENTS // SUBJECTS}
    command = Command("c1", "Any", "execution", "a/b", {}, "acme", "eve", "o1")
    time = "2026-01-02T03:04:05.123456Z"
    said = encode_event(
        99, 9, "ExecutionPaused", command.subject, 3, time, command, {"reason": "é"}
    )
    await filled.execute(
        "INSERT INTO events VALUES (99, 9, 'ExecutionPaused', $1, $2)", command.subject, said
    )
    await filled.execute("INSERT INTO histories VALUES ($1, 99, 9, 9)", command.subject)
    (row,) = await filled.fetch("SELECT * FROM audit WHERE subject = $1", command.subject)
    assert dict(row) | {"data": json.loads(row["data"])} == {
        "time": datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC),
        "tenant": "acme",
        "actor": "eve",
        "subject": "execution/a/b",
        "aggregate": "execution",
        "aggregate_id": "a/b",
        "type": "ExecutionPaused",
        "version": 3,
        "partition": 99,
        "position": 9,
        "causation_id": "c1",
        "correlation_id": "o1",
        "data": {"reason": "é"},
        "allowed": True,
        "origin": None,
    }
    kind = "SELECT pg_typeof(time)::text FROM audit WHERE subject = $1"
    assert await filled.fetchval(kind, command.subject) == "timestamp with time zone"


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_800_000_000 + seconds, UTC)


async def performance(
    pool: asyncpg.Pool, end: float | None, heard: float, *tasks: tuple[Any, ...]
) -> dict[str, Any]:
    await pool.execute("TRUNCATE executions, tasks")
    await pool.execute(EXECUTION, at(0), None if end is None else at(end), at(heard))
    for number, (agent, *times) in enumerate(tasks):
        moments = [None if second is None else at(second) for second in (0, *times)]
        await pool.execute(TASK, f"t{number}", agent, *moments)
    return dict(await pool.fetchrow("SELECT * FROM execution_performance"))


async def test_the_overhead_is_the_share_of_time_in_which_nobody_worked(pool):
    """0-10 s in all; at work 1-4 (two at once from 2 to 3), 6-8: 5 s idle."""
    found = await performance(
        pool, 10, 10, ("a", 1, 3), ("b", 2, 4), ("a", 6, 8), ("c", 9, 9), (None, None, 5)
    )
    assert found["total_runtime"].total_seconds() == 10
    assert (found["agents_allocated"], found["tasks_completed"]) == (3, 4)
    assert found["coordination_overhead"] == Decimal("0.5")


async def test_the_overhead_is_a_share_whatever_the_clocks_say(pool):
    half, quarter = Decimal("0.5"), Decimal("0.25")
    for end, heard, tasks, overhead in (
        (10, 10, [], 1),
        (10, 10, [("a", 0, 10), ("b", 0, 10)], 0),
        (10, 10, [("a", -50, 90)], 0),  # clocks that disagree
        (10, 10, [("a", -50, 5)], half),
        (10, 10, [("a", 5, 2)], 1),
        (None, 4, [("a", 1, None)], quarter),  # still running
        (None, 0, [], None),  # no time has passed: nobody can say
        (-3, -3, [("a", 0, 1)], None),
    ):
        found = await performance(pool, end, heard, *tasks)
        assert found["coordination_overhead"] == overhead, (end, heard, tasks)
