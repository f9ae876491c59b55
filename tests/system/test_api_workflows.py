"""Workflows over HTTP, on a running engine (R50)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from processors.settings import Addresses
from tests.system.api import api
from tests.system.engine import definition, engine


@pytest.fixture
async def http(database: str, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    addresses = Addresses(database, redis_url)
    async with engine(addresses), api(addresses) as client:
        yield client


async def test_a_created_workflow_has_a_place_and_a_repeat_is_the_same(http):
    first, again, other = [
        await http.post(
            "/api/v1/workflows", json=definition(tasks), headers={"Idempotency-Key": "k1"}
        )
        for tasks in (3, 3, 4)
    ]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["Location"] == f"/api/v1/workflows/{first.json()['workflow_id']}"
    assert other.status_code == 422
    assert other.json()["code"] == "CONFLICT"
    assert other.headers["Content-Type"] == "application/problem+json"
