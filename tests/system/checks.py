"""What must hold of any history, checked from the tables and streams by plain SQL and plain JSON.

Shares nothing with the engine but the names of tables, streams and fields; the ids (I1 …) are the
invariants of the fault matrix.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import asyncpg
from redis.asyncio import Redis

Json = dict[str, Any]


async def history(pool: asyncpg.Pool) -> dict[int, list[Json]]:
    """Every partition's events in order, after I1: positions are 1..n, and what is named agrees."""
    rows = await pool.fetch(
        "SELECT partition, position, type, subject, message::text AS message"
        " FROM events ORDER BY partition, position"
    )
    found: dict[int, list[Json]] = defaultdict(list)
    for row in rows:
        event = json.loads(row["message"])
        told = (event["partition"], event["position"], event["type"], event["subject"])
        assert told == tuple(row)[:4], "the columns and the message disagree"
        found[row["partition"]].append(event)
    for partition, events in found.items():
        positions = [event["position"] for event in events]
        assert positions == list(range(1, len(events) + 1)), f"I1 in partition {partition}"
    return dict(found)


def by_subject(found: dict[int, list[Json]]) -> dict[str, list[Json]]:
    """Each aggregate's events in order, after I2 (versions contiguous) and I3 (one partition)."""
    subjects: dict[str, list[Json]] = defaultdict(list)
    for events in found.values():
        for event in events:
            subjects[event["subject"]].append(event)
    for subject, events in subjects.items():
        assert len({event["partition"] for event in events}) == 1, f"I3: {subject}"
        versions = [event["version"] for event in events if event["type"] != "CommandRejected"]
        assert versions == list(range(1, len(versions) + 1)), f"I2: {subject}"
    return dict(subjects)


async def commits(pool: asyncpg.Pool) -> dict[int, list[Json]]:
    """Every partition's commits, after I4 (a command once), I5 (epochs rise) and no hole."""
    rows = await pool.fetch(
        "SELECT partition, number, first_position, last_position, epoch, commands::text"
        " FROM commits ORDER BY partition, number"
    )
    found: dict[int, list[Json]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for row in rows:
        commit: Json = dict(row) | {"commands": json.loads(row["commands"])}
        seen.update(name for name, *_ in commit["commands"])
        assert sum(count for _, count, *_ in commit["commands"]) == (
            commit["last_position"] - commit["first_position"] + 1
        )
        found[row["partition"]].append(commit)
    twice = {name for name, count in seen.items() if count > 1}
    assert not twice, f"I4: handled twice: {sorted(twice)[:5]}"
    for partition, those in found.items():
        assert [c["number"] for c in those] == list(range(1, len(those) + 1)), partition
        epochs = [c["epoch"] for c in those]
        assert epochs == sorted(epochs), f"I5: an older epoch wrote in partition {partition}"
        head = 0
        for commit in those:
            assert commit["first_position"] == head + 1, f"a hole in partition {partition}"
            head = commit["last_position"]
        [stored] = await pool.fetch(
            "SELECT count(*) AS events, c.position, c.commits FROM events AS e"
            " RIGHT JOIN cursors AS c USING (partition)"
            " WHERE c.consumer = 'commands' AND c.partition = $1 GROUP BY 2, 3",
            partition,
        )
        assert tuple(stored) == (head, head, len(those)), f"the head of partition {partition}"
    return dict(found)


async def mirror(pool: asyncpg.Pool, redis: Redis, whole: bool = True) -> int:
    """I11: what is mirrored is the log byte for byte, up to the head; returns how much there is."""
    rows = await pool.fetch("SELECT partition, position, message::text FROM events")
    log = {(row[0], row[1]): row[2].encode() for row in rows}
    heads: dict[int, int] = defaultdict(int)
    for partition, position in log:
        heads[partition] = max(heads[partition], position)
    there = 0
    for partition, head in heads.items():
        entries: Any = await redis.xrange(f"events:{{{partition}}}")
        for entry, fields in entries:
            position, _, zero = entry.decode().partition("-")
            assert zero == "0"
            assert log[partition, int(position)] == fields[b"message"]
        there += len(entries)
        if whole:
            assert entries[-1][0].decode() == f"{head}-0", f"the mirror of {partition} ends early"
    return there


def execution(events: list[Json], definition: Json) -> None:
    """One completed execution: exactly the events that its definition means, in a legal order.

    Per task TaskScheduled, TaskStarted and TaskCompleted once each; per execution one start, every
    phase once and in order, one end as the last; I17: no task starts before all that it waits for.
    """
    tasks = {task["task_id"]: task for task in definition["tasks"]}
    depth: dict[str, int] = {}
    for name in _in_order(tasks):
        depth[name] = 1 + max((depth[d] for d in tasks[name].get("depends_on") or []), default=0)
    phases = max(depth.values())
    counted = Counter(event["type"] for event in events)
    assert counted == {
        "ExecutionStarted": 1,
        "PhaseEntered": phases,
        "TaskScheduled": len(tasks),
        "TaskStarted": len(tasks),
        "TaskCompleted": len(tasks),
        "ExecutionCompleted": 1,
    }
    assert [e["data"]["phase"] for e in events if e["type"] == "PhaseEntered"] == list(
        range(1, phases + 1)
    )
    assert events[0]["type"] == "ExecutionStarted"
    assert events[-1]["type"] == "ExecutionCompleted"
    at: dict[str, dict[str, int]] = defaultdict(dict)
    for event in events:
        if event["type"].startswith("Task"):
            told = event["data"]
            assert event["type"] not in at[told["task"]], "I7: twice"
            assert told["attempt"] == 1
            at[told["task"]][event["type"]] = event["position"]
            if event["type"] == "TaskScheduled":
                assert told["role"] == tasks[told["task"]]["agent_role"]
                assert told["phase"] == depth[told["task"]]
    assert at.keys() == tasks.keys()
    for name, task in tasks.items():
        own = at[name]
        assert own["TaskScheduled"] < own["TaskStarted"] < own["TaskCompleted"]
        for dependency in task.get("depends_on") or []:
            assert at[dependency]["TaskCompleted"] < own["TaskScheduled"], "I17"


def _in_order(tasks: dict[str, Json]) -> list[str]:
    """The tasks with every one after those that it waits for."""
    open_ = {name: set(task.get("depends_on") or []) for name, task in tasks.items()}
    after: dict[str, list[str]] = defaultdict(list)
    for name, waits in open_.items():
        for dependency in waits:
            after[dependency].append(name)
    order = [name for name, waits in open_.items() if not waits]
    for name in order:
        for successor in after[name]:
            open_[successor].discard(name)
            if not open_[successor]:
                order.append(successor)
    assert len(order) == len(tasks)
    return order
