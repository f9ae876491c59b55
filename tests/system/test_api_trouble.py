"""The gateway while its servers are away, full or slow: it says so, at once, and comes back."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from processors.api import gateway as gateway_module
from processors.api import sending as sending_module
from processors.settings import Addresses
from streams.embedded import Servers
from tests.system.api import api
from tests.system.engine import definition, until
from tests.system.outages import own_servers

WORKFLOWS = "/api/v1/workflows"
WAIT_S = 0.5


@pytest.fixture(scope="module")
async def mine():
    async with own_servers() as servers:
        yield servers


@pytest.fixture
async def http(mine: Servers):
    """There is no engine: nobody answers commands."""
    async with api(Addresses(mine.database_url, mine.redis_url), api_wait_s=WAIT_S) as client:
        yield client


async def refused(http: httpx.AsyncClient, method: str, path: str, **more) -> tuple[int, str, str]:
    answer = await http.request(method, path, **more)
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"], answer.headers.get("Retry-After", "")


async def test_nobody_decides_so_there_is_no_outcome_and_a_key_to_ask_again_with(http):
    answer = await http.post(WORKFLOWS, json=definition())
    assert (answer.status_code, answer.json()["code"]) == (503, "NO_OUTCOME")
    assert (answer.headers["Retry-After"], len(answer.headers["Idempotency-Key"])) == ("1", 36)


async def test_one_key_is_under_way_once(http):
    named = {"json": definition(), "headers": {"Idempotency-Key": "once"}}
    first = asyncio.create_task(http.post(WORKFLOWS, **named))
    await asyncio.sleep(WAIT_S / 5)
    assert await refused(http, "POST", WORKFLOWS, **named) == (409, "IN_FLIGHT", "")
    assert (await first).status_code == 503
    assert (await refused(http, "POST", WORKFLOWS, **named))[:2] == (503, "NO_OUTCOME")


async def test_more_than_a_bounded_number_of_requests_do_not_wait(http, monkeypatch):
    monkeypatch.setattr(sending_module, "WAITING_MAX", 3)
    many = (refused(http, "POST", WORKFLOWS, json=definition()) for _ in range(5))
    statuses = sorted(await asyncio.gather(*many))
    assert statuses == [(429, "BUSY", "1")] * 2 + [(503, "NO_OUTCOME", "1")] * 3
    monkeypatch.setattr(gateway_module, "READS_MAX", 0)
    assert await refused(http, "GET", WORKFLOWS) == (429, "BUSY", "1")


async def test_a_redis_that_is_nearly_full_takes_no_commands_in(http, mine):
    async with Redis.from_url(mine.redis_url) as redis:
        await redis.config_set("maxmemory", "1mb")
        try:

            async def full() -> bool:
                answer = await refused(http, "POST", WORKFLOWS, json=definition())
                return answer == (429, "ENGINE_FULL", "5")

            await until(full, "the refusal")  # how full it is is looked for now and then
        finally:
            await redis.config_set("maxmemory", "0")


async def test_without_redis_reads_go_on(http, mine):
    assert (await http.get("/readyz")).status_code == 200
    await asyncio.to_thread(mine.redis.stop)
    try:
        code = await refused(http, "POST", WORKFLOWS, json=definition())
        assert code == (503, "NO_OUTCOME", "1")
        at_once = {"Prefer": "respond-async"}
        code = await refused(http, "POST", WORKFLOWS, json=definition(), headers=at_once)
        assert code == (503, "UNAVAILABLE", "1")
        assert (await http.get(WORKFLOWS)).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["redis"], ready.json()["postgres"]) == (
            503,
            False,
            True,
        )
        assert (await http.get("/healthz")).status_code == 200
    finally:
        await asyncio.to_thread(mine.redis.start)


async def test_without_postgres_reads_say_so_and_go_on_when_it_is_back(http, mine):
    await asyncio.to_thread(mine.postgres.stop)
    try:
        for path in (WORKFLOWS, f"{WORKFLOWS}/x", "/api/v1/executions/x/events"):
            assert await refused(http, "GET", path) == (503, "UNAVAILABLE", "1")
        waits = {"min_position": "0:0"}
        assert await refused(http, "GET", WORKFLOWS, params=waits) == (503, "UNAVAILABLE", "1")
        assert (await http.get("/readyz")).json()["postgres"] is False
    finally:
        await asyncio.to_thread(mine.postgres.start)

    async def back() -> bool:
        return (await http.get(WORKFLOWS)).status_code == 200

    await until(back, "the reads")
