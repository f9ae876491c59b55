"""Tenants' keys on a running engine: changed without a stop, taken away for ever (R60)."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from processors import commands
from processors.agents import Agent, Assignment
from processors.client import Rejected
from processors.payloads import reveal_event
from processors.settings import Addresses
from streams.chain import verify
from streams.codec import decode_event
from streams.message import Event
from streams.sealing import keyring
from streams.sealing.keyring import Keyring
from streams.sealing.kms import LocalKms, decode_keys, encode_key, read_file, write_file
from streams.sealing.sealer import Unopenable
from streams.sealing.store import TableKeys, parse
from tests.system.engine import ROOT, Engine, completed, definition, engine, host, projected, until

TIMEOUT_S = 60.0


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


@pytest.fixture
def kek() -> str:
    return encode_key(os.urandom(32))


async def orchestrator(
    addresses: Addresses, kek: str, *arguments: str, code: int = 0, as_json: bool = True
) -> Any:
    """A command as another process; what it prints."""
    key = {"ORCHESTRATOR_KEK_FILE" if Path(kek).is_file() else "ORCHESTRATOR_KEK": kek}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processors", *arguments, *(["--json"] if as_json else [])),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "LOGNAME": "ann"} | addresses.environment() | key,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == code, said.decode() + errors.decode()
    return orjson.loads(said) if as_json else said.decode().strip()


def echo(task: Assignment) -> Any:
    return {"echo": task.input}


async def ran(on: Engine, secret: str, tenant: str = "acme") -> str:
    """An execution of a tenant's that carries a secret from task to task."""
    creating = commands.create_workflow(definition=definition(2))
    starting = commands.start_execution(creating.root, input=secret)
    for command in (creating, starting):
        command.tenant = tenant
        await on.client.call(command)
    await completed(on.pool, [starting.root])
    return starting.root


async def events(on: Engine, root: str) -> list[Event]:
    query = "SELECT message FROM events WHERE subject = $1 ORDER BY position"
    rows = await on.pool.fetch(query, f"execution/{root}")
    return [decode_event(row[0]) for row in rows]


async def said(on: Engine, keys: Keyring, root: str) -> str:
    """All that an execution's events say to who has these keys."""
    await keys.hold(["acme"], create=False)
    sealer = keys.held("acme") or keys.why_not("acme")
    return repr([reveal_event(sealer, event) for event in await events(on, root)])


async def forgotten(keys: Keyring) -> bool:
    return keys.held("acme") is None


def a_worker(tenant: str = "acme") -> list[Agent]:
    return [Agent(f"{tenant}-1", ("worker",), echo, capacity=10, tenant=tenant)]


async def test_keys_change_while_work_goes_on(
    addresses: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new data key seals what follows, the old one opens what was; so with a new KEK."""
    monkeypatch.setattr(keyring, "FRESH_S", 0.0)
    path = tmp_path / "kek"
    write_file(path, [os.urandom(32)])
    told = str(path)
    secrets = [f"secret-{uuid4().hex}" for _ in range(3)]
    async with engine(addresses, kek_file=path) as on:
        keys = on.client.keys
        assert keys is not None
        async with host(addresses, a_worker(), keys=on.worker.keys):
            roots = [await ran(on, secrets[0])]
            done = await orchestrator(
                addresses, told, "tenant", "rotate", "acme", "--why", "as every year"
            )
            assert done == {"tenant": "acme", "key_version": 2}
            roots.append(await ran(on, secrets[1]))
            before = read_file(path)
            done = await orchestrator(addresses, told, "keys", "rotate-kek")
            assert done["rewrapped"] == 2
            assert before[0] not in read_file(path)
            roots.append(await ran(on, secrets[2]))
        versions = [
            event.data["input"]["$sealed"].partition(".")[0]
            for root in roots
            for event in await events(on, root)
            if event.type == "ExecutionStarted"
        ]
        assert versions == ["1", "2", "2"]
        fresh = Keyring(TableKeys(on.client.log, LocalKms(lambda: read_file(path))))
        for root, secret in zip(roots, secrets, strict=True):
            assert secret not in repr(await events(on, root))
            assert secret in await said(on, fresh, root)
        stale = Keyring(TableKeys(on.client.log, LocalKms(lambda: before)))
        with pytest.raises(Unopenable, match="WRONG_KEY"):
            await stale.sealer("acme")
        await projected(on)
        [row] = await orchestrator(addresses, told, "tenant", "list")
        assert (row["tenant"], row["status"], row["key_version"]) == ("acme", "active", 2)


async def test_an_erased_tenants_payloads_are_unreadable_and_its_log_is_whole(
    addresses: Addresses, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for processes that had the keys; what happened is still listed, and verified."""
    monkeypatch.setattr(keyring, "KEEP_S", 1.0)
    monkeypatch.setattr(keyring, "FRESH_S", 0.5)
    secret, other = f"secret-{uuid4().hex}", f"secret-{uuid4().hex}"
    async with engine(addresses, kek=kek) as on:
        agents = [*a_worker(), *a_worker("other")]
        async with host(addresses, agents, keys=on.worker.keys):
            root, theirs = await ran(on, secret), await ran(on, other, "other")
            worker = on.worker.keys
            assert worker is not None
            assert worker.held("acme") is not None
            assert secret in await said(on, worker, root)
            wrong = await orchestrator(
                addresses, kek, "tenant", "erase", "acme", "--yes", code=2, as_json=False
            )
            assert "Erased" not in wrong
            done = await orchestrator(
                addresses, kek, "tenant", "erase", "acme", "--why", "it has ended", "--yes"
            )
            assert done["erased"]
            await until(lambda: forgotten(worker), "the worker to forget", 10 * keyring.KEEP_S)
            everybody = (
                worker,
                Keyring(TableKeys(on.client.log, LocalKms(lambda: decode_keys(kek)))),
            )
            for keys in everybody:
                shown = await said(on, keys, root)
                assert secret not in shown
                assert "ERASED" in shown
                with pytest.raises(Unopenable, match="ERASED"):
                    await keys.sealer("acme")
            left = "SELECT count(wrapped) FROM tenant_keys WHERE tenant = 'acme'"
            assert await on.pool.fetchval(left) == 0
            # Others are as they were; the erased one stores nothing more.
            [event, *_] = await events(on, theirs)
            assert reveal_event(await worker.sealer("other"), event)["input"] == other
            again = commands.create_workflow(definition=definition(2))
            again.tenant = "acme"
            with pytest.raises(Rejected, match="The tenant was erased"):
                await on.client.call(again)
        await projected(on)
        listed = await orchestrator(addresses, kek, "status", root)
        assert (listed["status"], listed["completed"]) == ("completed", 2)
        replayed = await orchestrator(addresses, kek, "replay", root, "--check")
        assert replayed["differences"] == []
        for partition in range(16):
            assert (await verify(on.client.log, partition)).ok
        rows = {row["tenant"]: row for row in await orchestrator(addresses, kek, "tenant", "list")}
        assert rows["acme"]["status"] == "erased"
        assert (rows["acme"]["erased_by"], rows["acme"]["erased_why"]) == ("ann", "it has ended")
        assert rows["other"]["status"] == "active"


async def test_a_host_without_a_database_has_one_tenants_keys(
    addresses: Addresses, kek: str
) -> None:
    """Exported, and noted; with them it opens and seals for that tenant, and for no other."""
    secret = f"secret-{uuid4().hex}"
    async with engine(addresses, kek=kek) as on:
        assert on.worker.keys is not None
        await on.worker.keys.hold(["acme", "other"])
        text = await orchestrator(addresses, kek, "tenant", "key", "acme", as_json=False)
        given = Keyring(parse(text))
        async with host(addresses, a_worker(), keys=given):
            root = await ran(on, secret)
        assert secret in await said(on, given, root)
        with pytest.raises(Unopenable, match="WRONG_KEY"):
            await given.sealer("other")
        rows = await on.pool.fetch("SELECT actor, action, tenant, subject FROM audit_reads")
        assert [tuple(row) for row in rows] == [("ann", "KeyExported", "acme", "tenant/acme")]


async def test_who_reads_payloads_is_in_the_trail(addresses: Addresses, kek: str) -> None:
    """R60: who, when, from where, by which way; and who has no keys reads nothing."""
    secret = f"secret-{uuid4().hex}"
    async with engine(addresses, kek=kek) as on:
        async with host(addresses, a_worker(), keys=on.worker.keys):
            root = await ran(on, secret)
        shown = await orchestrator(
            addresses, kek, "events", root, "--type", "TaskCompleted", "--json", as_json=False
        )
        assert shown.count(secret) == 2
        sealed = await orchestrator(
            addresses, kek, "events", root, "--sealed", "--json", as_json=False
        )
        assert secret not in sealed
        without = await orchestrator(addresses, "", "events", root, as_json=False)
        assert secret not in without
        rows = await on.pool.fetch(
            "SELECT actor, type, subject, tenant, allowed, data FROM audit WHERE origin IS NOT NULL"
        )
        [(actor, kind, subject, tenant, allowed, data)] = [tuple(row) for row in rows]
        assert (actor, kind, subject) == ("ann", "PayloadsRead", f"execution/{root}")
        assert (tenant, allowed) == ("acme", True)
        assert orjson.loads(data) == {"via": "orchestrator events", "payloads": 2, "detail": ""}
