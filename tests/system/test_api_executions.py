"""Executions over HTTP: started, watched, steered, explained (R10, R11, R50, R55)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from processors.agents import Agent, Assignment, NeedInput, TaskError
from tests.servers import Endpoints
from tests.system.api import at, both
from tests.system.engine import Engine, agents, definition, host, until

API = "/api/v1"


@pytest.fixture(scope="module")
async def running(servers: Endpoints) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    async with both(servers) as made:
        yield made


@pytest.fixture
def on(running: tuple[Engine, httpx.AsyncClient]) -> Engine:
    return running[0]


@pytest.fixture
def http(running: tuple[Engine, httpx.AsyncClient]) -> httpx.AsyncClient:
    return running[1]


async def created(http: httpx.AsyncClient, document: dict[str, Any]) -> str:
    made = await http.post(f"{API}/workflows", json=document)
    assert made.status_code == 201, made.text
    return str(made.json()["workflow_id"])


async def started(http: httpx.AsyncClient, document: dict[str, Any], **body: Any) -> httpx.Response:
    made = await http.post(f"{API}/workflows/{await created(http, document)}/execute", json=body)
    assert made.status_code == 201, made.text
    return made


async def ended(http: httpx.AsyncClient, place: str, status: str = "completed") -> dict[str, Any]:
    """The execution, once it has this status."""

    async def reached() -> dict[str, Any] | None:
        got = await http.get(place)
        body: dict[str, Any] = got.json()
        return body if got.status_code == 200 and body["status"] == status else None

    found = await until(reached, f"{place} {status}")
    assert found is not None
    return found


def of(role: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    named = [{"agent_role": role} | task for task in tasks]
    return {"name": role, "agents": {role: {}}, "tasks": named}


async def test_an_execution_is_started_watched_and_read_back(on, http):
    async with agents(on.client._addresses, ["runner"]):
        options = {
            "timeout": 60,
            "retry_policy": {"max_attempts": 1},
            "resource_constraints": {"max_agents": 2, "max_cpu": 4, "max_memory": 8192},
        }
        made = await started(
            http,
            definition(3, role="runner"),
            input_data={"topic": "tides"},
            execution_options=options,
        )
        place, workflow = made.headers["Location"], made.json()["workflow_id"]
        whole = await ended(http, place)
    assert (whole["input"], whole["timeout_seconds"]) == ({"topic": "tides"}, 60)
    assert whole["tasks"]["completed"] == whole["tasks"]["total"] == 3
    for path in (f"{place}/status", f"{API}/workflows/{workflow}/status"):
        status = (await http.get(path)).json()
        assert status["execution_id"] == made.json()["execution_id"]
        assert (status["status"], status["current_phase"]) == ("completed", "3/3")
        [agent] = status["agents"]
        assert (agent["status"], agent["current_task"], agent["progress"]) == ("completed", None, 1)
        figures = status["performance_metrics"]
        assert (figures["tasks_completed"], figures["agents_allocated"]) == (3, 1)
        assert 0 < figures["total_runtime"] < 60
        assert 0 <= figures["coordination_overhead"] <= 1
    tasks = (await http.get(f"{place}/tasks", params={"limit": 2})).json()
    assert [task["task_id"] for task in tasks["items"]] == ["t0", "t1"]
    rest = (await http.get(f"{place}/tasks", params={"limit": 2, "cursor": tasks["next"]})).json()
    assert [task["task_id"] for task in rest["items"]] == ["t2"]
    listed = (await http.get(f"{API}/executions", params={"workflow_id": workflow})).json()
    assert [one["execution_id"] for one in listed["items"]] == [whole["execution_id"]]
    none = await http.get(f"{API}/executions", params={"before": whole["started_at"]})
    assert whole["execution_id"] not in {one["execution_id"] for one in none.json()["items"]}


async def test_its_events_and_its_state_at_any_moment_are_there(on, http):
    async with agents(on.client._addresses, ["historian"]):
        made = await started(http, definition(2, role="historian"))
        place = made.headers["Location"]
        await ended(http, place)
    found, cursor = [], None
    while not found or cursor:
        params = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        one = (await http.get(f"{place}/events", params=params)).json()
        found, cursor = found + one["items"], one["next"]
    versions = [event["version"] for event in found]
    assert versions == list(range(1, len(found) + 1))
    assert (found[0]["type"], found[-1]["type"]) == ("ExecutionStarted", "ExecutionCompleted")
    ends = {"type": ["ExecutionCompleted", "ExecutionFailed"], "after": found[2]["position"]}
    [only] = (await http.get(f"{place}/events", params=ends)).json()["items"]
    assert only == found[-1]
    then = (await http.get(f"{place}/state", params={"position": found[3]["position"]})).json()
    assert (then["status"], then["version"]) == ("executing", 4)
    past = (await http.get(f"{place}/state", params={"time": found[-1]["time"]})).json()
    assert past == (await http.get(f"{place}/state")).json()
    assert past["counts"] == {"completed": 2}
    both_given = {"time": found[-1]["time"], "position": 1}
    assert (await http.get(f"{place}/state", params=both_given)).status_code == 422
    before = {"time": "1999-01-01T00:00Z"}
    assert (await http.get(f"{place}/state", params=before)).status_code == 404


async def test_it_is_paused_resumed_and_cancelled_by_workflow_and_by_version(on, http):
    made = await started(http, of("nobody", {"task_id": "a"}))
    place, workflow = made.headers["Location"], made.json()["workflow_id"]
    seen = await http.get(place, params=at(made))
    paused = await http.post(
        f"{API}/workflows/{workflow}/pause",
        json={"reason": "lunch"},
        params=at(made),
        headers={"If-Match": seen.headers["ETag"]},
    )
    assert paused.json()["execution_id"] == made.json()["execution_id"]
    got = await http.get(place, params=at(paused))
    assert (got.json()["status"], got.json()["reason"]) == ("paused", "lunch")
    again = await http.post(f"{place}/pause")
    assert (again.status_code, again.json()["changed"]) == (200, False)
    stale = await http.post(f"{place}/resume", headers={"If-Match": seen.headers["ETag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "VERSION_CONFLICT")
    assert (await http.post(f"{place}/resume", json={})).json()["changed"] is True
    why = (await http.get(f"{place}/explain")).json()
    assert "No live agent serves the role" in why["findings"][0]["text"]
    cancelled = await http.post(f"{place}/cancel", json={"reason": "ordered twice"})
    assert (await http.get(place, params=at(cancelled))).json()["status"] == "cancelled"
    refused = await http.post(f"{place}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "EXECUTION_ENDED")


async def test_a_signal_an_answer_and_a_retry_make_it_go_on(on, http):
    def work(task: Assignment) -> Any:
        if task.task_id == "ask" and task.answer is None:
            raise NeedInput("ship?")
        if task.task_id == "convert" and task.input == "tiff":
            raise TaskError("no tiff here", retryable=False)
        return task.answer or task.signal or task.input

    doing = [Agent("steered-1", ("steered",), work, capacity=10)]
    async with host(on.client._addresses, doing):
        made = await started(
            http,
            of(
                "steered",
                {"task_id": "wait", "wait_for": "approved"},
                {"task_id": "ask"},
                {"task_id": "convert", "depends_on": ["wait", "ask"], "input": "tiff"},
            ),
        )
        place = made.headers["Location"]

        async def asked() -> bool:
            tasks = (await http.get(f"{place}/tasks", params={"status": "waiting"})).json()
            return [task["prompt"] for task in tasks.get("items", [])] == ["ship?"]

        await until(asked, "the question")
        status = (await http.get(f"{place}/status")).json()
        [agent] = status["agents"]
        assert (agent["status"], agent["current_task"]) == ("assigned", "ask")
        early = await http.post(f"{place}/answer", json={"task": "wait", "input": 1})
        assert (early.status_code, early.json()["code"]) == (409, "NOT_WAITING")
        await http.post(f"{place}/answer", json={"task": "ask", "input": "yes"})
        await http.post(f"{place}/signal", json={"name": "approved", "data": {"by": "ada"}})
        failed = await ended(http, place, "failed")
        assert "no tiff here" in failed["reason"]
        wrong = await http.post(f"{place}/retry", json={"inputs": {"nothing": 1}})
        assert (wrong.status_code, wrong.json()["pointer"]) == (404, "/inputs/nothing")
        await http.post(f"{place}/retry", json={"task": "convert", "inputs": {"convert": "png"}})
        done = await ended(http, place)
    outputs = {
        task["task_id"]: task["output"]
        for task in (await http.get(f"{place}/tasks")).json()["items"]
    }
    assert outputs == {"wait": {"by": "ada"}, "ask": "yes", "convert": "png"}
    assert done["tasks"]["completed"] == 3


async def test_who_does_not_wait_asks_for_the_outcome_by_its_key(http):
    workflow = await created(http, of("nobody", {"task_id": "a"}))
    at_once = {"Prefer": "respond-async"}
    key = {"Idempotency-Key": "start-1"}
    path = f"{API}/workflows/{workflow}/execute"
    said = await http.post(path, json={}, headers=at_once | key)
    assert (said.status_code, said.json()["status"]) == (202, "pending")
    assert said.headers["Preference-Applied"] == "respond-async"

    async def known() -> httpx.Response | None:
        got = await http.get(said.headers["Location"])
        return got if got.status_code == 200 else None

    outcome = await until(known, "the outcome")
    assert outcome is not None
    assert (outcome.json()["status"], outcome.json()["changed"]) == ("accepted", True)
    waited = await http.post(path, json={}, headers=key)
    assert waited.json()["execution_id"] == said.json()["execution_id"]
    assert waited.headers["X-Position"] == outcome.headers["X-Position"]
    wrong = await http.post(f"{API}/executions/none/pause", headers=at_once)
    refused = await until(lambda: _rejected(http, wrong.headers["Location"]), "the refusal")
    assert refused["problem"]["code"] == "UNKNOWN_EXECUTION"
    assert (await http.get(f"{API}/outcomes/none/never")).status_code == 404


async def _rejected(http: httpx.AsyncClient, place: str) -> dict[str, Any] | None:
    got = await http.get(place)
    return got.json() if got.status_code == 200 else None


async def test_what_is_wrong_with_a_start_points_into_its_body(http):
    workflow = await created(http, of("nobody", {"task_id": "a"}))
    path = f"{API}/workflows/{workflow}/execute"
    policy = {"retry_policy": {"max_attempts": 3, "max_backoff_seconds": 1e9}}
    for body, pointer in (
        ({"execution_options": policy}, "/execution_options/retry_policy/max_backoff_seconds"),
        ({"execution_options": {"timeout": 0}}, "/execution_options/timeout"),
        ({"input_data": "x" * 1_100_000}, "/input_data"),
        ({"inputs": 1}, "/inputs"),
    ):
        refused = await http.post(path, json=body)
        assert refused.json()["pointer"] == pointer, refused.text
        assert refused.status_code in (413, 422)
    missing = await http.post(f"{API}/workflows/none/execute", json={})
    assert (missing.status_code, missing.json()["code"]) == (404, "UNKNOWN_WORKFLOW")
    for path in ("executions/none", "workflows/none/status", "executions/none/events"):
        assert (await http.get(f"{API}/{path}")).status_code == 404


async def test_many_requests_at_once_get_each_their_own_answer(http):
    workflow = await created(http, of("nobody", {"task_id": "a"}))
    made = await asyncio.gather(
        *(http.post(f"{API}/workflows/{workflow}/execute", json={}) for _ in range(100))
    )
    assert {one.status_code for one in made} == {201}
    assert len({one.json()["execution_id"] for one in made}) == 100
    for one in made:
        await http.get(one.headers["Location"], params=at(one))
    times: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params: dict[str, Any] = {"workflow_id": workflow, "limit": 33}
        found = (await http.get(f"{API}/executions", params=params | _cursor(cursor))).json()
        times += [one["started_at"] for one in found["items"]]
        cursor = found["next"]
    assert len(times) == 100
    assert times == sorted(times, key=datetime.fromisoformat, reverse=True)


def _cursor(cursor: str) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}
