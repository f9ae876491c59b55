"""Payloads over HTTP: opened for who may read them, and that is in the trail (R60)."""

from __future__ import annotations

import os
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from processors.agents import Agent, Assignment, NeedInput, TaskError
from processors.settings import Addresses
from streams.partition import commands_key
from streams.sealing.kms import encode_key
from tests.access import SECRET as KEY
from tests.access import token as signed
from tests.system.api import api
from tests.system.engine import Engine, engine, host, projected, until
from tests.system.sockets import Ear, served

SECRETS = {what: f"{what}-{uuid4().hex}" for what in ("input", "defined", "output", "error", "ask")}


@pytest.fixture
def kek() -> str:
    return encode_key(os.urandom(32))


@pytest.fixture
async def on(database: str, redis_url: str, kek: str) -> AsyncIterator[Engine]:
    async with engine(Addresses(database, redis_url), kek=kek) as made:
        yield made


def answer(task: Assignment) -> Any:
    if task.task_id == "fails":
        raise TaskError(f"NO_LUCK: {SECRETS['error']}", retryable=False)
    if task.task_id == "asks":
        return NeedInput(SECRETS["ask"])
    return {"made": SECRETS["output"], "of": task.input}


async def ran(web: httpx.AsyncClient, *tasks: dict[str, Any]) -> tuple[str, str]:
    """A workflow and its execution, both given over HTTP."""
    named = [{"agent_role": "worker", "retry_policy": {"max_attempts": 1}} | one for one in tasks]
    document = {"name": "secret", "agents": {"worker": {}}, "tasks": named}
    made = await web.post("/api/v1/workflows", json=document)
    assert made.status_code == 201, made.text
    workflow = made.json()["workflow_id"]
    started = await web.post(
        f"/api/v1/workflows/{workflow}/execute", json={"input_data": {"in": SECRETS["input"]}}
    )
    assert started.status_code < 300, started.text
    return workflow, started.json()["execution_id"]


async def paged(web: httpx.AsyncClient, path: str, **wanted: Any) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    items: list[dict[str, Any]] = []
    while True:
        found = (await web.get(path, params=wanted)).json()
        items += found["items"]
        if (cursor := found["next"]) is None:
            return items
        wanted["cursor"] = cursor


async def test_payloads_are_opened_and_that_is_noted(on: Engine, kek: str) -> None:
    addresses: Addresses = on.client._addresses
    agents = [Agent("worker-1", ("worker",), answer, capacity=10)]
    async with host(addresses, agents, keys=on.worker.keys), api(addresses, kek=kek) as web:
        given = {"task_id": "given", "input": {"is": SECRETS["defined"]}}
        asks, fails = {"task_id": "asks"}, {"task_id": "fails", "depends_on": ["given"]}
        workflow, execution = await ran(web, {"task_id": "first"}, given, asks, fails)
        here = f"/api/v1/executions/{execution}"

        async def failed() -> bool:
            found = await web.get(here)
            return found.status_code == 200 and found.json()["status"] == "failed"

        await until(failed, "the failure")
        await projected(on)
        whole = (await web.get(here)).json()
        assert whole["input"] == {"in": SECRETS["input"]}
        assert whole["reason"].endswith(f"NO_LUCK: {SECRETS['error']}")
        tasks = {one["task_id"]: one for one in (await web.get(f"{here}/tasks")).json()["items"]}
        assert tasks["given"]["output"]["of"] == {"is": SECRETS["defined"]}
        assert tasks["asks"]["prompt"] == SECRETS["ask"]
        assert tasks["fails"]["error"] == f"NO_LUCK: {SECRETS['error']}"
        events = (await web.get(f"{here}/events")).json()["items"]
        assert SECRETS["output"] in str(events)
        assert "$sealed" not in str(events)
        [page] = [(await web.get(f"{here}/events", params={"limit": 2})).json()]
        assert len(page["items"]) == 2
        assert page["next"]
        definition = (await web.get(f"/api/v1/workflows/{workflow}/definition")).json()
        assert SECRETS["defined"] in str(definition)
        [listed] = (await web.get("/api/v1/executions")).json()["items"]
        assert listed["reason"].endswith("NO_LUCK: …")
        rows = await on.pool.fetch("SELECT DISTINCT actor, origin, subject, via FROM audit_reads")
        looked = {row["via"]: (row["actor"], row["origin"], row["subject"]) for row in rows}
        assert looked["GET /api/v1/executions/{execution_id}"] == (
            *("http", "127.0.0.1"),
            f"execution/{execution}",
        )
        assert looked["GET /api/v1/workflows/{workflow_id}/definition"][2] == f"workflow/{workflow}"
        assert len(looked) == 4, "lists are not opened"
        assert (await web.post(f"{here}/retry", json={"task": "nothing"})).status_code >= 400
        trail = (
            await web.get("/api/v1/audit", params={"subject": f"execution/{execution}"})
        ).json()
        assert {one["actor"] for one in trail["items"]} >= {"http", "worker-1"}
        [refused] = [one for one in trail["items"] if not one["allowed"]]
        assert refused["problem"]["code"] == "UNKNOWN_TASK"
        assert refused["origin"] == "127.0.0.1", "from where, as the gateway saw it"
        everything = await paged(web, "/api/v1/audit", limit=7)
        stored = await on.pool.fetch("SELECT partition, position FROM events")
        places = [(one["partition"], one["position"]) for one in everything]
        assert sorted(places) == sorted(tuple(row) for row in stored)
        times = [one["time"] for one in everything]
        assert times == sorted(times, reverse=True)
        assert await paged(web, "/api/v1/audit", allowed=False) == [refused]
        [by] = {one["actor"] for one in await paged(web, "/api/v1/audit", actor="worker-1")}
        assert by == "worker-1"
        seen = "SELECT DISTINCT origin FROM audit WHERE type IN ('WorkflowCreated', 'TaskStarted')"
        assert {row[0] for row in await on.pool.fetch(seen)} == {"127.0.0.1", None}
        reads = await paged(web, "/api/v1/audit/reads", limit=2, subject=f"execution/{execution}")
        assert {one["via"] for one in reads} == set(looked) - {
            "GET /api/v1/workflows/{workflow_id}/definition"
        }
        assert [one["number"] for one in reads] == sorted(
            (o["number"] for o in reads), reverse=True
        )


async def test_a_dead_letters_bytes_are_opened(on: Engine, kek: str) -> None:
    addresses: Addresses = on.client._addresses
    poison = b'{"poison": "' + SECRETS["input"].encode() + b'"}'
    await on.client.bus.append({commands_key(3): [poison]})

    async def there() -> Any:
        return await on.pool.fetch("SELECT dead_letter_id, raw FROM dead_letters")

    [(letter, raw)] = await until(there, "the letter")
    assert SECRETS["input"].encode() not in raw
    async with api(addresses, kek=kek) as web:
        found = (await web.get(f"/api/v1/dead-letters/{letter}")).json()
        assert b64decode(found["raw"]) == poison
    async with api(addresses) as web:
        found = (await web.get(f"/api/v1/dead-letters/{letter}")).json()
        assert SECRETS["input"].encode() not in b64decode(found["raw"])


async def test_who_may_not_read_payloads_does_not_where_they_are_in_clear_either(
    database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key-encryption key: by any route that shows some, and by any socket."""
    addresses, asked = Addresses(database, redis_url), {"auth": "token", "auth_key": KEY.decode()}

    def by(role: str, **more: Any) -> str:
        return signed(role, tenant="default", now=time.time(), **more)

    doing = [Agent("worker-1", ("worker",), answer, capacity=10)]
    theirs = by("agent", subject="worker-1", agents=["worker-1"])
    async with (
        engine(addresses, **asked) as on,
        host(addresses, doing, token=lambda: theirs),
        served(addresses, monkeypatch, **asked) as gateway,
        httpx.AsyncClient(base_url=gateway.url.replace("ws", "http", 1)) as web,
    ):
        web.headers["Authorization"] = f"Bearer {by('admin')}"
        given = {"task_id": "given", "input": {"is": SECRETS["defined"]}}
        asks, fails = {"task_id": "asks"}, {"task_id": "fails", "depends_on": ["given"]}
        workflow, execution = await ran(web, {"task_id": "first"}, given, asks, fails)
        here = f"/api/v1/executions/{execution}"

        async def failed() -> bool:
            found = await web.get(here)
            return found.status_code == 200 and found.json()["status"] == "failed"

        await until(failed, "the failure")
        await projected(on)
        paths = [here, f"{here}/tasks", f"{here}/events", f"{here}/state", "/api/v1/executions"]
        paths.append(f"/api/v1/workflows/{workflow}/definition")
        everything = "".join([(await web.get(path)).text for path in paths])
        assert all(secret in everything for secret in SECRETS.values()), "who may, reads all of it"
        web.headers["Authorization"] = f"Bearer {by('viewer')}"
        for path in (*paths, f"{here}/explain"):
            shown = await web.get(path)
            assert shown.status_code == 200, shown.text
            assert not [name for name, secret in SECRETS.items() if secret in shown.text], path
        count = await on.pool.fetchval(
            "SELECT count(*) FROM events WHERE subject = $1", f"execution/{execution}"
        )
        for role, seen in (("viewer", False), ("designer", True)):
            shown_by = {"additional_headers": {"Authorization": f"Bearer {by(role)}"}}
            async with gateway.open(f"/ws/executions/{execution}?from=0", **shown_by) as socket:
                ear = Ear(socket)
                await ear.hear_events(count)
            assert (SECRETS["output"] in str(ear.events)) is seen
            assert "NO_LUCK: " in str(ear.events), "an error's name stays"
