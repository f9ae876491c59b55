"""What holds for every request: problems, types, sizes, versions, traces, tenants, CORS (R50)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from msgspec.structs import replace

from processors.api.app import make_app
from processors.api.requests import BODY_BYTES_MAX, BODY_DEPTH_MAX, DEFINITION_BYTES_MAX
from processors.api.server import serve
from processors.commands import create_workflow, register_agent, start_execution
from processors.settings import Addresses, Settings
from tests.servers import Endpoints
from tests.system.api import at, both
from tests.system.engine import Engine, definition, until

API = "/api/v1"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ORIGIN = "https://console.example"


@pytest.fixture(scope="module")
async def running(servers: Endpoints) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    async with both(servers, api_cors_origins=[ORIGIN]) as made:
        yield made


@pytest.fixture
def on(running: tuple[Engine, httpx.AsyncClient]) -> Engine:
    return running[0]


@pytest.fixture
def http(running: tuple[Engine, httpx.AsyncClient]) -> httpx.AsyncClient:
    return running[1]


JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "NOT_FOUND"),
        ("GET", f"{API}/workflows/", {}, 404, "NOT_FOUND"),
        ("PATCH", f"{API}/workflows", {}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"{API}/workflows", {"headers": {"Accept": "text/html"}}, 406, "NOT_ACCEPTABLE"),
        ("POST", f"{API}/workflows", {"content": b"<a/>"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", f"{API}/executions/x/pause", {"content": b"{}"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", f"{API}/workflows", {"content": b"{", "headers": JSON}, 400, "INVALID_JSON"),
        ("POST", f"{API}/executions/x/signal", {"json": {}}, 422, "MISSING_FIELD"),
        ("POST", f"{API}/executions/x/pause", {"json": {"why": 1}}, 422, "UNKNOWN_FIELD"),
        ("POST", f"{API}/executions/x/pause", {"json": {"reason": 1}}, 422, "INVALID_VALUE"),
        ("GET", f"{API}/executions", {"params": {"limit": 501}}, 422, "INVALID_VALUE"),
        ("GET", f"{API}/executions", {"params": {"since": "0.5"}}, 422, "INVALID_VALUE"),
        ("GET", f"{API}/executions/{'x' * 129}", {}, 422, "INVALID_VALUE"),
        ("GET", f"{API}/agents", {"params": {"min_position": "0:999"}}, 422, "INVALID_VALUE"),
        (
            *("POST", f"{API}/executions/x/pause"),
            *({"headers": {"Idempotency-Key": "a b"}}, 422, "INVALID_VALUE"),
        ),
        (
            *("POST", f"{API}/executions/x/signal"),
            *({"json": {"name": "a\0b"}}, 422, "INVALID_PAYLOAD"),
        ),
        (
            *("POST", f"{API}/workflows/x/execute"),
            *({"content": nested(BODY_DEPTH_MAX + 1), "headers": JSON}, 400, "INVALID_JSON"),
        ),
        (
            *("POST", f"{API}/workflows/x/execute"),
            *({"content": b" " * (BODY_BYTES_MAX + 1), "headers": JSON}, 413, "TOO_LARGE"),
        ),
        (
            *("POST", f"{API}/workflows"),
            *({"content": b" " * (DEFINITION_BYTES_MAX + 1), "headers": JSON}, 413, "TOO_LARGE"),
        ),
        (
            *("POST", f"{API}/workflows"),
            *({"content": b"a: \0", "headers": {"Content-Type": "application/yaml"}}, 422),
            "INVALID_PAYLOAD",
        ),
    ],
)
async def test_a_mistake_gets_its_status_and_a_problem(http, method, path, more, status, code):
    answer = await http.request(method, path, **more)
    assert (answer.status_code, answer.headers["Content-Type"]) == (
        status,
        "application/problem+json",
    ), answer.text
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["type"] == f"urn:agentcore:problem:{code.lower().replace('_', '-')}"
    assert problem["detail"]


async def test_a_body_without_a_length_is_bounded_as_well(http):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    answer = await http.post(f"{API}/workflows/x/execute", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE")


async def test_all_that_is_wrong_with_a_body_is_said_with_pointers(http):
    answer = await http.put(f"{API}/agents/a", json={"roles": [1], "capacity": 0})
    problem = answer.json()
    assert {error["pointer"] for error in problem["errors"]} == {"/name", "/roles/0", "/capacity"}
    assert problem["pointer"] == problem["errors"][0]["pointer"]
    wrong = await http.get(f"{API}/agents", params={"limit": "x"})
    assert wrong.json()["parameter"] == "limit"


async def test_what_nests_as_deeply_as_may_be_is_understood_by_the_engine(http):
    made = await http.post(f"{API}/workflows", json=definition())
    path = f"{made.headers['Location']}/execute"
    body = b'{"input_data":' + nested(BODY_DEPTH_MAX - 1) + b"}"
    assert (await http.post(path, content=body, headers=JSON)).status_code == 201


async def test_a_method_that_is_not_there_names_those_that_are(http):
    answer = await http.patch(f"{API}/agents/a-1")
    assert answer.headers["Allow"] == "DELETE, GET, PUT"


async def test_traces_and_request_ids_go_through(on, http):
    sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-Id": "mine-1"}
    made = await http.post(f"{API}/workflows", json=definition(), headers=sent)
    assert made.headers["X-Request-Id"] == "mine-1"
    ours = rf"00-{TRACE}-(?!00f067aa0ba902b7)[0-9a-f]{{16}}-01"
    assert re.fullmatch(ours, made.headers["traceparent"])
    partition, position = map(int, made.headers["X-Position"].split(":"))
    raw = await on.pool.fetchval(
        "SELECT message FROM events WHERE partition = $1 AND position = $2", partition, position
    )
    event = orjson.loads(raw)
    assert event["traceparent"] == made.headers["traceparent"]
    assert (event["actor"], event["causationid"]) == ("http", made.json()["command_id"])
    nonsense = {"traceparent": "00-zz", "X-Request-Id": "a b\tc"}
    other = await http.get("/healthz", headers=nonsense)
    assert other.headers["X-Request-Id"] != nonsense["X-Request-Id"]
    assert other.headers["traceparent"].startswith("00-")


async def test_pages_of_other_origins_may_ask_only_where_that_is_set(http, servers):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    allowed = await http.options(f"{API}/workflows", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    other = await http.get("/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers
    app = make_app(Settings(), Addresses("", ""))  # the default; it needs no server for this
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as plain:
        none = await plain.get("/healthz", headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in none.headers


async def test_what_is_another_tenants_is_not_there(on, http):
    """I14: reads find nothing, and writes are answered as if there were nothing."""
    create = create_workflow(definition=definition())
    start = start_execution(create.root)
    agent = register_agent("theirs", name="theirs", roles=["r"])
    position = ""
    for command in (create, start, agent):
        outcome = await on.client.call(replace(command, tenant="theirs"))
        position = f"{outcome.partition}:{outcome.last}"
        await http.get(f"{API}/agents", params={"min_position": position})
    execution, workflow = f"executions/{start.root}", f"workflows/{create.root}"
    for path in (
        *(execution, f"{execution}/status", f"{execution}/tasks", f"{execution}/events"),
        *(f"{execution}/state", f"{execution}/explain", workflow, f"{workflow}/definition"),
        *(f"{workflow}/status", "agents/theirs"),
    ):
        answer = await http.get(f"{API}/{path}")
        assert answer.status_code == 404, path
    for method, path, body in (
        ("POST", f"{execution}/pause", {}),
        ("POST", f"{execution}/signal", {"name": "go"}),
        ("POST", f"{workflow}/execute", {}),
        ("POST", f"{workflow}/archive", {}),
        ("PUT", workflow, definition(1)),
        ("POST", "agents/theirs/drain", {}),
    ):
        answer = await http.request(method, f"{API}/{path}", json=body)
        assert answer.status_code == 404, (path, answer.text)
        assert "theirs" not in answer.text.replace("agent theirs", ""), "nothing of whose it is"
    for path in ("workflows", "executions", "agents"):
        listed = (await http.get(f"{API}/{path}", params={"limit": 500})).text
        assert create.root not in listed
        assert start.root not in listed


async def test_agents_are_registered_drained_and_forgotten(http):
    said = {"name": "Ada", "roles": ["writer"], "capacity": 3, "region": "eu"}
    made = await http.put(f"{API}/agents/ada", json=said)
    assert (made.status_code, made.json()["changed"]) == (200, True)
    assert (await http.put(f"{API}/agents/ada", json=said)).json()["changed"] is False
    got = await http.get(f"{API}/agents/ada", params=at(made))
    assert {name: got.json()[name] for name in said} == said
    drained = await http.post(f"{API}/agents/ada/drain", headers={"If-Match": got.headers["ETag"]})
    gone = await http.delete(f"{API}/agents/ada", params={"reason": "retired"})
    after = await http.get(f"{API}/agents/ada", params=at(gone))
    assert (drained.status_code, after.json()["status"]) == (200, "deregistered")
    listed = await http.get(f"{API}/agents", params={"role": "writer", "status": "deregistered"})
    assert [one["agent_id"] for one in listed.json()["items"]] == ["ada"]


async def test_dead_letters_are_looked_at_and_decided_on(on, http):
    await on.client.bus.append({"commands": [b"\xff no command"]})

    async def open_letters() -> Any:
        params = {"status": "open", "kind": "command"}
        return (await http.get(f"{API}/dead-letters", params=params)).json()["items"]

    [letter] = await until(open_letters, "the letter")
    place = f"{API}/dead-letters/{letter['dead_letter_id']}"
    whole = (await http.get(place)).json()
    assert (whole["raw"], whole["raw_kept"]) == ("/yBubyBjb21tYW5k", 12)
    assert (await http.post(f"{place}/discard", json={"reason": " "})).status_code == 422
    said = await http.post(f"{place}/discard", json={"reason": "a test"})
    decided = (await http.get(place, params=at(said))).json()
    assert (decided["status"], decided["decided_by"], decided["decided_why"]) == (
        "discarded",
        "http",
        "a test",
    )
    late = await http.post(f"{place}/retry", json={"reason": "again"})
    assert (late.status_code, late.json()["code"]) == (409, "DEAD_LETTER_DISCARDED")
    assert (await http.get(f"{API}/dead-letters/{'0' * 32}")).status_code == 404


async def test_the_read_models_say_how_far_they_are(http):
    models = (await http.get(f"{API}/projections")).json()["items"]
    assert {"workflows", "executions", "tasks", "agents"} <= {model["name"] for model in models}
    for model in models:
        assert model["lag"] == sum(one["lag"] for one in model["partitions"])
        assert len(model["partitions"]) == 16


async def test_what_was_asked_is_counted(http):
    await http.get(f"{API}/workflows/one")
    await http.get(f"{API}/workflows/two")
    text = (await http.get("/metrics")).text
    counted = 'agentcore_http_requests_total{method="GET",route="/api/v1/workflows/{workflow_id}"'
    assert counted in text
    assert "/workflows/one" not in text


async def test_a_gateway_ends_in_order_and_bounds_what_comes_before_a_request(on):
    """A real server: heads that never end are cut off, and whoever was served gets their answer."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    addresses, stop = on.client._addresses, asyncio.Event()
    settings = Settings(
        DATABASE_URL=addresses.database_url, REDIS_URL=addresses.redis_url, api_port=0
    )
    serving = asyncio.create_task(serve(settings, addresses, url.set_result, stop))
    base = await url
    port = int(base.rpartition(":")[2])
    async with httpx.AsyncClient(base_url=base) as http:
        assert (await http.get("/readyz")).json()["status"] == "ready"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        said = b""
        while not said:
            writer.write(b"x" * 32_768)
            await asyncio.sleep(0)
            with_some = asyncio.create_task(reader.read(200))
            done, _ = await asyncio.wait([with_some], timeout=0.05)
            said = with_some.result() if done else b""
            if not done:
                with_some.cancel()
        assert said.startswith(b"HTTP/1.1 400")
        writer.close()
        last = asyncio.create_task(http.post(f"{API}/workflows", json=definition()))
        await asyncio.sleep(0)
        stop.set()
        assert (await last).status_code == 201
    await serving
