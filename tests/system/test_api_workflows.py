"""Workflows over HTTP, on a running engine (R50)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import yaml

from tests.servers import Endpoints
from tests.system.api import at, both
from tests.system.engine import definition

WORKFLOWS = "/api/v1/workflows"
VALIDATE = "/api/v1/validate"


@pytest.fixture
async def http(servers: Endpoints) -> AsyncIterator[httpx.AsyncClient]:
    async with both(servers) as (_, client):
        yield client


async def test_a_created_workflow_has_a_place_and_a_repeat_is_the_same(http):
    first, again, other = [
        await http.post(WORKFLOWS, json=definition(tasks), headers={"Idempotency-Key": "k1"})
        for tasks in (3, 3, 4)
    ]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["Location"] == f"{WORKFLOWS}/{first.json()['workflow_id']}"
    assert other.status_code == 422
    assert other.json()["code"] == "CONFLICT"
    assert other.headers["Content-Type"] == "application/problem+json"


async def test_a_workflow_is_read_revised_and_archived_by_its_version(http):
    """A write answers with its position, and a read that names it sees the write."""
    made = await http.post(WORKFLOWS, json=definition(name="first"))
    place = made.headers["Location"]
    got = await http.get(place, params=at(made))
    assert (got.status_code, got.headers["ETag"]) == (200, '"1"')
    assert (got.json()["name"], got.json()["tasks"], got.json()["status"]) == ("first", 3, "active")
    text = yaml.safe_dump(definition(4, name="second"))
    yaml_type = {"Content-Type": "application/yaml"}
    revised = await http.put(place, content=text, headers=yaml_type | {"If-Match": '"1"'})
    assert revised.json()["changed"] is True
    stale = await http.put(place, json=definition(5), headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["version"]) == (412, 2)
    assert stale.json()["code"] == "VERSION_CONFLICT"
    now = await http.get(place, params=at(revised))
    assert (now.headers["ETag"], now.json()["revision"], now.json()["name"]) == ('"2"', 2, "second")
    first, newest = [
        (await http.get(f"{place}/definition", params={"revision": n})).json() for n in (1, 0)
    ]
    assert (len(first["tasks"]), len(newest["tasks"])) == (3, 4)
    archived = await http.post(f"{place}/archive", json={"reason": "done"})
    assert archived.status_code == 200
    refused = await http.put(place, json=definition(6))
    assert (refused.status_code, refused.json()["code"]) == (409, "WORKFLOW_ARCHIVED")
    [listed] = (await http.get(WORKFLOWS, params=at(archived) | {"status": "archived"})).json()[
        "items"
    ]
    assert listed["workflow_id"] == made.json()["workflow_id"]


async def test_pages_go_on_where_the_last_one_ended_and_only_with_the_same_question(http):
    made = [await http.post(WORKFLOWS, json=definition(name=f"w{n}")) for n in range(5)]
    for one in made:
        await http.get(WORKFLOWS, params=at(one))
    first = (await http.get(WORKFLOWS, params={"limit": 3})).json()
    rest = (await http.get(WORKFLOWS, params={"limit": 3, "cursor": first["next"]})).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == ["w4", "w3", "w2", "w1", "w0"]
    assert rest["next"] is None
    tampered = first["next"][:-2] + ("AA" if first["next"][-2:] != "AA" else "BB")
    for question in ({"cursor": tampered}, {"cursor": first["next"], "status": "active"}):
        refused = await http.get(WORKFLOWS, params=question)
        assert (refused.status_code, refused.json()["code"]) == (422, "INVALID_CURSOR")


async def test_what_is_wrong_is_said_with_its_place_and_nothing_is_stored(http):
    wrong = definition() | {"tasks": [{"task_id": "a", "agent_role": "nobody"}]}
    for path in (WORKFLOWS, VALIDATE):
        refused = await http.post(path, json=wrong)
        assert refused.status_code == 422
        problem = refused.json()
        assert (problem["code"], problem["pointer"]) == ("UNKNOWN_ROLE", "/tasks/0/agent_role")
    plan = (await http.post(VALIDATE, json=definition())).json()
    assert (plan["tasks"], plan["phases"]) == (3, 3)
    assert (await http.get(WORKFLOWS)).json() == {"items": [], "next": None}
