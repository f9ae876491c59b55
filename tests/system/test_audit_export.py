"""The trail as a file that proves itself: what was changed in it is named (R55, R60)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from processors import commands
from processors.client import Rejected
from processors.reading import Reader
from processors.settings import Addresses
from streams.exported import Checked, check
from streams.sealing.kms import encode_key
from tests.system.engine import Engine, agents, completed, definition, engine
from tests.system.test_tenants import orchestrator


async def filled(on: Engine, addresses: Addresses) -> str:
    """A log with some executions, a refusal and a look at payloads; returns an execution."""
    async with agents(addresses, ["worker"]):
        creating = commands.create_workflow(definition=definition(2))
        await on.client.call(creating)
        starting = [commands.start_execution(creating.root) for _ in range(4)]
        await asyncio.gather(*map(on.client.call, starting))
        await completed(on.pool, [command.root for command in starting])
    with pytest.raises(Rejected):
        await on.client.call(commands.retry_execution(starting[0].root))
    for name in ("ann", 'b"ob\n\x1fé', "c\\"):
        see = Reader(on.client.log, on.client.keys, name, "10.0.0.1", "GET /x")
        await see.refused("default", f"execution/{starting[0].root}", "FORBIDDEN")
    return starting[0].root


def find(lines: list[bytes], kind: bytes, number: int = 0) -> int:
    """The place of a line of this type."""
    return [i for i, line in enumerate(lines) if b'"type":"' + kind + b'"' in line][number]


def lines_of(checked: Checked) -> list[int]:
    return [damage.line for damage in checked.damages]


async def test_an_export_is_checked_without_a_database(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    addresses, file = Addresses(database, redis_url), tmp_path / "trail.jsonl"
    kek = encode_key(os.urandom(32))
    async with engine(addresses, kek=kek) as on:
        root = await filled(on, addresses)
        await orchestrator(addresses, kek, "audit", "export", str(file), as_json=False)
        events = await on.pool.fetchval("SELECT count(*) FROM events")
        listed = await orchestrator(addresses, kek, "audit", "list", "--refused")
        assert {row["subject"] for row in listed} == {f"execution/{root}"}
        assert {row["type"] for row in listed} == {"CommandRejected", "PayloadsRead"}
    nowhere = Addresses("postgresql://nowhere/x", "redis://nowhere")
    found = await orchestrator(nowhere, kek, "verify", "--export", str(file))
    assert found["ok"]
    assert (found["events"], found["reads"]) == (events, 3)
    digest = found["digest"]
    await orchestrator(nowhere, kek, "verify", "--export", str(file), "--digest", digest)
    told = ("verify", "--export", str(file), "--digest", "0" * 32)
    await orchestrator(nowhere, kek, *told, code=1)
    lines = file.read_bytes().splitlines()
    assert all(orjson.loads(line)["specversion"] == "1.0" for line in lines), "CloudEvents"
    for name, damaged, where in damages(lines):
        checked = check(damaged)
        assert not checked.ok, name
        assert where in lines_of(checked), (name, where, checked.damages)
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"\n".join(lines[:-1]))
    said = await orchestrator(nowhere, kek, "verify", "--export", str(broken), code=1)
    assert said["damages"][0]["reason"].startswith("the end is missing")


def damages(lines: list[bytes]) -> list[tuple[str, list[bytes], int]]:
    """Exports to which somebody has done something, and the line that is to be named."""
    task = find(lines, b"TaskCompleted")
    commit, read = find(lines, b"agentcore.Commit", 2), find(lines, b"agentcore.Read", 1)
    end = len(lines)

    def changed(place: int, old: bytes, new: bytes) -> list[bytes]:
        assert old in lines[place], (old, lines[place])
        return [*lines[:place], lines[place].replace(old, new, 1), *lines[place + 1 :]]

    def without(place: int) -> list[bytes]:
        return [*lines[:place], *lines[place + 1 :]]

    def swapped(place: int) -> list[bytes]:
        return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]

    partition = orjson.loads(lines[task])["partition"]
    mark = b'"partition":%d,' % partition

    def whole(line: bytes) -> bool:
        return mark in line or b'"partition/%d"' % partition in line

    forged: Any = orjson.loads(lines[end - 1])
    forged["data"]["partitions"][str(partition)]["position"] += 1
    rest = [line for line in lines if not whole(line)]
    return [
        ("an event is changed", changed(task, b'"attempt":1', b'"attempt":2'), task + 1),
        ("an actor is changed", changed(task, b'"actor":"', b'"actor":"x'), task + 1),
        ("an event is removed", without(task), task + 1),
        ("events are swapped", swapped(task - 1), task),
        ("a commit is removed", without(commit), following(lines, commit)),
        ("a commit is changed", changed(commit, b'"epoch":', b'"epoch":1'), commit + 1),
        ("a read is changed", changed(read, b"10.0.0.1", b"10.0.0.2"), read + 1),
        ("a read is removed", without(read), read + 1),
        ("a line is added", [*lines[:task], lines[task - 1], *lines[task:]], task + 1),
        ("a line is no JSON", changed(task, b"{", b""), task + 1),
        ("lines stand behind the end", [*lines, lines[task]], end + 1),
        ("a whole partition is left out", rest, len(rest)),
        ("the end is another", [*lines[:-1], orjson.dumps(forged)], end),
    ]


def following(lines: list[bytes], commit: int) -> int:
    """Where the lack of a commit shows: at the next one of its partition, or at the end."""
    subject = orjson.loads(lines[commit])["subject"].encode()
    for place in range(commit + 1, len(lines)):
        if b'"agentcore.Commit"' in lines[place] and b'"%b"' % subject in lines[place]:
            return place
    return len(lines) - 1
