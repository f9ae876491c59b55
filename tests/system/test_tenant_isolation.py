"""R60, I14: what is tenant A's, tenant B does not find, whichever way he asks.

Routes are those of the OpenAPI document and of the app, tables and views those of the database: one
that is added without isolation turns this red.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from starlette.routing import WebSocketRoute

from processors import commands
from processors.api.door import PUBLIC
from processors.api.routes import ROUTERS
from processors.settings import Addresses
from tests.access import SECRET, token
from tests.system.api import api
from tests.system.engine import Engine, definition, engine, until

KEK = b64encode(bytes(range(32))).decode()
ASKED = {"auth": "token", "auth_key": SECRET.decode(), "kek": KEK}
SECRET_WORD = "only-a-knows"
EVERYTHING = ("viewer", "operator", "designer", "admin")
NOBODYS = {"engine", "cursors"}
"""Tables that whoever serves a tenant may read, since nothing of any tenant is in them."""


def by(tenant: str) -> dict[str, str]:
    shown = token(*EVERYTHING, tenant=tenant, subject=f"someone of {tenant}", now=time.time())
    return {"Authorization": f"Bearer {shown}"}


@pytest.fixture
async def on(database: str, redis_url: str) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    addresses = Addresses(database, redis_url)
    async with engine(addresses, **ASKED) as made, api(addresses, **ASKED) as http:
        yield made, http


async def of_a(on: Engine, http: httpx.AsyncClient) -> dict[str, str]:
    """Something of everything that a tenant can have; by the names of the parameters of paths."""
    mine = by("a")
    flow = definition(name=SECRET_WORD, role=SECRET_WORD)
    made = await http.post("/api/v1/workflows", json=flow, headers=mine)
    assert made.status_code == 201, made.text
    workflow = made.json()["workflow_id"]
    key = {"Idempotency-Key": "key-of-a"}
    begun = await http.post(
        f"/api/v1/workflows/{workflow}/execute",
        json={"input_data": {"word": SECRET_WORD}},
        headers=mine | key,
    )
    assert begun.status_code in (200, 201), begun.text
    execution = begun.json()["execution_id"]
    agent = commands.register_agent("agent-of-a", name=SECRET_WORD, roles=["r"])
    agent.token = token("operator", tenant="a", now=time.time())
    await on.client.call(agent)
    letter = "letter-of-a"
    await on.pool.execute(
        "INSERT INTO dead_letters (dead_letter_id, kind, tenant, source, entry, reason, raw,"
        " raw_bytes) VALUES ($1, 'command', 'a', 's', 'e', $2, '', 0)",
        letter,
        SECRET_WORD,
    )
    await on.pool.execute(
        "INSERT INTO audit_reads (tenant, actor, origin, action, subject, via, payloads, allowed,"
        " hash) VALUES ('a', 'ann', 'x', 'PayloadsRead', $1, 'x', 1, true, '')",
        f"execution/{execution}",
    )
    params = {"min_position": begun.headers["X-Position"]}
    seen = await http.get(f"/api/v1/executions/{execution}", headers=mine, params=params)
    assert seen.status_code == 200, seen.text

    async def there() -> bool:
        return bool(await on.pool.fetchval("SELECT count(*) FROM agents"))

    await until(there, "the agent in its table")
    return {
        "workflow_id": workflow,
        "execution_id": execution,
        "agent_id": "agent-of-a",
        "letter": letter,
        "subject": execution,
        "key": "key-of-a",
        "tenant": "a",
    }


def paths(document: dict[str, Any], known: dict[str, str]) -> list[tuple[str, str, bool]]:
    """Every method and path, with A's names in it, and whether it names something of A's."""
    found = []
    for path, methods in document["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        filled = path
        for name in names:
            filled = filled.replace(f"{{{name}}}", known.get(name, "t0"))
        found += [(method, filled, bool(names)) for method in methods if method != "parameters"]
    return found


BODIES: tuple[Any, ...] = (
    {},
    {"reason": "x"},
    {"name": "x", "data": 1},
    {"task": "t0"},
    {"task": "t0", "input": 1},
    {"name": "x", "roles": ["r"]},
    definition(),
)
"""Between them every route understands one."""


async def test_no_route_shows_or_does_anything_with_what_is_anothers(on):
    made, http = on
    known = await of_a(made, http)
    before = await made.pool.fetchval("SELECT count(*) FROM events WHERE message->>'tenant' = 'a'")
    document = (await http.get("/openapi.json")).json()
    walked = [one for one in paths(document, known) if one[1] not in PUBLIC]
    assert len(walked) > 20
    own = 0
    for method, path, named in walked:
        bodies = BODIES if method in ("post", "put", "patch") else (None,)
        for body in bodies:
            asked = {"headers": by("b")} | ({} if body is None else {"json": body})
            answer = await http.request(method.upper(), path, **asked)
            assert answer.status_code < 500, (method, path, answer.text)
            assert SECRET_WORD not in answer.text, (method, path)
            if named and answer.status_code < 300:
                raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
            nobody = await http.request(method.upper(), path)
            assert nobody.status_code == 401, (method, path)
        if method == "get":
            mine = await http.get(path, headers=by("a"))
            assert mine.status_code < 500, (path, mine.text)
            own += mine.status_code == 200
    assert own > 8, "and whose it is finds it"
    done = await made.pool.fetch(
        "SELECT DISTINCT type FROM events WHERE message->>'tenant' = 'a' AND position > 0"
        " AND message->>'actor' = 'someone of b'"
    )
    assert {row[0] for row in done} <= {"CommandRejected"}
    kept = await made.pool.fetchval(
        "SELECT count(*) FROM events WHERE message->>'tenant' = 'a' AND type <> 'CommandRejected'"
    )
    assert kept >= before
    letter = await made.pool.fetchrow("SELECT status, due FROM dead_letters")
    assert tuple(letter) == ("open", False)


async def test_every_websocket_asks_who_it_is(on):
    """What they show is another file's; here, that none is without a question."""
    _, http = on
    app = http._transport.app
    routes = [route for router, _ in ROUTERS for route in router.routes]
    found = [route.path for route in routes if isinstance(route, WebSocketRoute)]
    assert len(found) >= 3
    for path in found:
        said: list[Any] = []
        messages = [{"type": "websocket.connect"}]

        async def receive(messages: list[Any] = messages) -> Any:
            return messages.pop(0)

        async def send(message: Any, said: list[Any] = said) -> None:
            said.append(message)

        scope = {
            "type": "websocket",
            "path": re.sub(r"{\w+}", "x", path),
            "raw_path": b"",
            "query_string": b"",
            "headers": [(b"host", b"api")],
            "subprotocols": [],
            "scheme": "ws",
            "server": ("api", 80),
            "client": ("c", 1),
            "app": app,
        }
        await app(scope, receive, send)
        assert [one["type"] for one in said] == ["websocket.accept", "websocket.close"], path
        assert said[-1]["code"] == 4401


async def test_no_table_and_no_view_shows_a_row_of_anothers(on, database):
    """As the gateway that serves B, and as a person with SQL; and A's find theirs."""
    made, http = on
    known = await of_a(made, http)
    login, password = f"sql_{time.time_ns()}", "only for this test"
    owner = await asyncpg.connect(database)
    try:
        relations = await owner.fetch(
            "SELECT relname, relkind::text AS kind, relrowsecurity FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
        )
        open_ = [one[0] for one in relations if one["kind"] in ("r", "p") and not one[2]]
        assert open_ == [], "every table has row-level security"
        await owner.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{password}'")
        await owner.execute(f"GRANT agentcore_reader TO {login}")
        person = await asyncpg.connect(database, user=login, password=password)
        names = [row["relname"] for row in relations]
        marks = [*known.values(), SECRET_WORD]
        try:
            seen: dict[tuple[str, str], int] = {}
            for tenant in ("b", "a"):
                await owner.execute(
                    "INSERT INTO sql_users VALUES ($1, $2)"
                    " ON CONFLICT (login) DO UPDATE SET tenant = excluded.tenant",
                    login,
                    tenant,
                )
                await person.execute("SELECT set_config('agentcore.tenant', 'a', false)")
                await owner.execute("SELECT set_config('role', 'agentcore_api', false)")
                await owner.execute("SELECT set_config('agentcore.tenant', $1, false)", tenant)
                for who, connection in (("api", owner), ("person", person)):
                    for name in names:
                        rows = await _rows(connection, name)
                        if tenant == "b" and name not in NOBODYS:
                            assert rows == [], (who, name)
                        if tenant == "b":
                            assert not _named(rows, marks), (who, name)
                        seen[who, name] = len(rows)
                await owner.execute("RESET ROLE")
            for name in ("workflows", "executions", "agents", "events", "audit", "dead_letters"):
                assert seen["api", name] > 0, name
                assert seen["person", name] > 0, name
            for name in ("tenant_keys", "commits", "snapshots", "sql_users"):
                assert seen["api", name] == seen["person", name] == 0, name
        finally:
            await person.close()
    finally:
        await owner.execute("RESET ROLE")
        await owner.execute(f"DROP ROLE IF EXISTS {login}")
        await owner.close()


async def _rows(connection: asyncpg.Connection, name: str) -> list[Any]:
    try:
        return list(await connection.fetch(f'SELECT * FROM "{name}"'))
    except asyncpg.InsufficientPrivilegeError:
        return []


def _named(rows: list[Any], marks: list[str]) -> bool:
    text = orjson.dumps([dict(row) for row in rows], default=str).decode()
    return any(mark in text for mark in marks if len(mark) > 3)


async def test_a_worker_may_not_change_what_has_happened(on, database):
    """Least privilege: its role only adds to the log."""
    made, http = on
    await of_a(made, http)
    async with made.worker.log.pool.acquire() as connection:
        assert await connection.fetchval("SELECT current_setting('role')") == "agentcore_worker"
        for statement in (
            "UPDATE events SET type = 'x'",
            "DELETE FROM events",
            "DELETE FROM commits",
            "TRUNCATE events",
            "DROP TABLE events",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
