"""Payloads at rest: none stands anywhere in clear, and who has the keys reads them (R60)."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

import pytest

from processors import commands, dead_letters, partition_loading, process_manager
from processors.agents import Agent, Assignment, NeedInput, TaskError
from processors.payloads import reveal_event
from processors.sealing import open_raw
from processors.settings import Addresses
from streams.chain import verify
from streams.codec import decode_event, encode_command
from streams.message import Command
from streams.partition import commands_key, partition_of
from streams.sealing.kms import encode_key
from tests.system import dumps, stories
from tests.system.engine import Engine, an_id, engine, host, projected, until

WHAT = (
    *("input", "defined", "output", "error", "prompt", "answer", "signal", "edited", "undone"),
    *("plain", "poison"),
)


class Secrets:
    """One that is planted in each kind of payload."""

    def __init__(self) -> None:
        self.of = {what: f"{what}-{uuid4().hex}" for what in WHAT}
        self.heard: list[Assignment] = []

    def __getitem__(self, what: str) -> str:
        return self.of[what]

    def document(self) -> dict[str, Any]:
        """A workflow that has a use for all of them."""
        tasks: list[dict[str, Any]] = [
            {"task_id": "made", "compensation_action": "unmake"},
            {"task_id": "defined", "depends_on": ["made"], "input": {"is": self["defined"]}},
            {"task_id": "asks", "depends_on": ["defined"], "wait_for": "go"},
            {"task_id": "fails", "depends_on": ["asks"]},
        ]
        for task in tasks:
            task |= {"agent_role": "worker", "retry_policy": {"max_attempts": 1}}
        return {"name": "secretive", "agents": {"worker": {}}, "tasks": tasks}

    def agent(self, task: Assignment) -> Any:
        """Does each task as its name says."""
        self.heard.append(task)
        if task.kind == "compensation":
            return {"undone": self["undone"]}
        if task.task_id == "asks" and task.answer is None:
            return NeedInput({"please": self["prompt"]})
        if task.task_id == "fails":
            raise TaskError(f"NO_LUCK: it was {self['error']}", retryable=False)
        return {"made": self["output"]}


async def story(on: Engine, addresses: Addresses, secrets: Secrets) -> str:
    """An execution in which everything happens, and messages from outside beside it."""
    doing = [Agent("worker-1", ("worker",), secrets.agent, capacity=10)]
    async with host(addresses, doing, keys=on.worker.keys):
        root = await stories.started(on.client, secrets.document(), input={"in": secrets["input"]})
        await on.client.call(commands.signal_execution(root, "go", secrets["signal"]))
        await stories.happened(on.pool, root, "InputRequested")
        await on.client.call(commands.provide_input(root, "asks", [secrets["answer"]]))
        await stories.happened(on.pool, root, "ExecutionFailed")
        # Whoever knows only the streams sends in clear; and what nobody understands is kept.
        plain = an_id("plain", partition_of(root, 16))
        workflow = (await stories.events(on.pool, root))[0]["data"]["workflow_id"]
        data = {"workflow_id": workflow, "input": {"in": secrets["plain"]}}
        start = Command(str(uuid4()), "StartExecution", "execution", plain, data)
        key = commands_key(partition_of(root, 16))
        poison = b'{"not": "a command", "but": "' + secrets["poison"].encode() + b'"}'
        await on.client.bus.append({key: [encode_command(start), poison]})
        await stories.happened(on.pool, plain, "TaskScheduled")
        edited = {"fails": {"now": secrets["edited"]}}
        retried = await stories.started(on.client, _two(), input=1)
        await stories.happened(on.pool, retried, "ExecutionFailed")
        await on.client.call(commands.retry_execution(retried, inputs=edited))
        await stories.happened(on.pool, retried, "ExecutionFailed", 2)
        await stories.happened(on.pool, plain, "TaskCompleted", 2)
    await projected(on)
    return root


def _two() -> dict[str, Any]:
    task = {"task_id": "fails", "agent_role": "worker", "retry_policy": {"max_attempts": 1}}
    return {"name": "retried", "agents": {"worker": {}}, "tasks": [task]}


async def settled(on: Engine) -> None:
    """The command streams are trimmed, and the letter is in its table."""

    async def there() -> bool:
        lengths = [await on.client.bus.redis.xlen(commands_key(p)) for p in range(16)]
        letters = await on.pool.fetchval("SELECT count(*) FROM dead_letters")
        return letters > 0 and (on.worker.keys is None or not any(lengths))

    await until(there, "the trimming")


def few_events_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_loading, "SNAPSHOT_EVENTS", 5)
    monkeypatch.setattr(process_manager, "SNAPSHOT_EVENTS", 5)


async def test_nothing_of_a_payload_stands_in_clear_anywhere(
    database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R60: every table, every key, and the files of both servers; yet agents and readers see it."""
    few_events_a_snapshot(monkeypatch)
    addresses, secrets, since = Addresses(database, redis_url), Secrets(), time.time() - 1
    kek = encode_key(os.urandom(32))
    async with engine(addresses, kek=kek) as on:
        root = await story(on, addresses, secrets)
        await settled(on)
        consumers = await on.pool.fetch("SELECT DISTINCT consumer FROM snapshots")
        assert {row[0] for row in consumers} == {"commands", "managers"}, "void"
        kept = await dumps.tables(on.pool)
        kept |= await dumps.keys(on.client.bus.redis)
        kept |= await dumps.redis_files(on.client.bus.redis)
        kept |= await dumps.database_files(on.pool, since)
        found = dumps.where([*secrets.of.values(), kek], kept)
        assert {secret: places for secret, places in found.items() if places} == {}
        assert "NO_LUCK: sealed:" in kept["tasks"].decode(), "an error keeps its name"
        await readable(on, root, secrets)
        for partition in range(16):
            assert (await verify(on.client.log, partition)).ok
        assert on.processor.counters.refusals == 0


async def test_without_sealing_they_all_stand_there(
    database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search finds what is there, so that the test above can fail."""
    few_events_a_snapshot(monkeypatch)
    addresses, secrets, since = Addresses(database, redis_url), Secrets(), time.time() - 1
    async with engine(addresses) as on:
        await story(on, addresses, secrets)
        await settled(on)
        kept = await dumps.tables(on.pool) | await dumps.keys(on.client.bus.redis)
        found = dumps.where(secrets.of.values(), kept)
        assert [secret for secret, places in found.items() if not places] == []
        assert {name for places in found.values() for name in places} >= {
            *("events", "definitions", "executions", "tasks", "dead_letters", "snapshots"),
        }
        for files in (
            await dumps.redis_files(on.client.bus.redis),
            await dumps.database_files(on.pool, since),
        ):
            found = dumps.where([secrets["output"]], files)
            assert not files or found[secrets["output"]]


async def readable(on: Engine, root: str, secrets: Secrets) -> None:
    """Who has the keys reads all of it."""
    keys = on.client.keys
    assert keys is not None
    sealer = await keys.sealer("default")
    events = [decode_event(row[0]) for row in await on.pool.fetch("SELECT message FROM events")]
    said = repr([reveal_event(sealer, event) for event in events])
    for what in set(WHAT) - {"defined", "poison"}:
        assert secrets[what] in said, what
    failed = next(e for e in events if e.type == "ExecutionFailed" and e.root == root)
    assert reveal_event(sealer, failed)["reason"].endswith(f"NO_LUCK: it was {secrets['error']}")
    [letter] = await dead_letters.find(on.pool, dead_letters.Filter())
    letter = await dead_letters.show(on.pool, letter.id)
    assert secrets["poison"].encode() in await open_raw(keys, letter.id, letter.raw)
    heard = repr(secrets.heard)
    for what in ("input", "defined", "output", "answer", "signal", "edited", "plain"):
        assert secrets[what] in heard, what


async def test_a_log_that_was_in_clear_is_read_and_gone_on_with_when_sealing_is_on(
    database: str, redis_url: str
) -> None:
    """And the other way round: without keys it runs on, and its payloads stay sealed."""
    addresses, kek = Addresses(database, redis_url), encode_key(os.urandom(32))
    secrets = {turn: f"{turn}-{uuid4().hex}" for turn in ("clear", "sealed", "again")}
    roots: dict[str, str] = {}
    for turn, key in (("clear", None), ("sealed", kek), ("again", None)):
        async with engine(addresses, kek=key) as on:
            doing = [Agent("worker-1", ("worker",), lambda task: task.input, capacity=10)]
            async with host(addresses, doing, keys=on.worker.keys):
                roots[turn] = await stories.started(on.client, _two(), input=secrets[turn])
                await stories.happened(on.pool, roots[turn], "ExecutionCompleted")
    async with engine(addresses, kek=kek) as on:
        stored = {turn: repr(await stories.events(on.pool, root)) for turn, root in roots.items()}
        assert [turn for turn in roots if secrets[turn] in stored[turn]] == ["clear", "again"]
        assert on.client.keys is not None
        sealer = await on.client.keys.sealer("default")
        events = [decode_event(row[0]) for row in await on.pool.fetch("SELECT message FROM events")]
        read = repr([reveal_event(sealer, event) for event in events])
        assert all(read.count(secret) == 3 for secret in secrets.values()), "in, made, out"
