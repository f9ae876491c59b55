"""R60, F36: an engine that asks for tokens, from a stream and over HTTP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from processors import commands
from processors.access.keys import shared
from processors.access.tokens import LEEWAY_S
from processors.agents import register, simulated_agents
from processors.client import Client, Rejected
from processors.replies import decode_outcome
from processors.settings import Addresses
from streams.bus import Bus
from streams.codec import encode_command, stamped
from streams.message import Command
from streams.partition import COMMANDS_INBOX, commands_key, partition_of
from tests.access import SECRET
from tests.access import token as signed
from tests.system.api import api
from tests.system.engine import Engine, an_id, completed, definition, engine, host, until

ASKED = {"auth": "token", "auth_key": SECRET.decode()}
REPLIES = "replies:test-access"


def token(*roles: str, **more: Any) -> str:
    return signed(*roles, **({"now": time.time()} | more))


@pytest.fixture
async def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


@pytest.fixture
async def on(addresses: Addresses) -> AsyncIterator[Engine]:
    async with engine(addresses, **ASKED) as made:
        yield made


async def publish(bus: Bus, command: Command, shown: str | None, stream: str = "") -> None:
    """What any program can do that reaches Redis."""
    command.reply_to = REPLIES
    stream = stream or commands_key(partition_of(command.root, 16))
    await bus.append({stream: [stamped(encode_command(command), shown)]})


async def outcomes(bus: Bus, count: int) -> list[Any]:
    async def there() -> list[Any]:
        found = (await bus.read({REPLIES: "0-0"}, 100, 1)).get(REPLIES, [])
        return found if len(found) >= count else []

    return [decode_outcome(raw) for _, raw in await until(there, "the outcomes")]


async def letters(on: Engine, count: int) -> list[Any]:
    async def there() -> list[Any]:
        rows = await on.pool.fetch("SELECT reason, raw, tenant FROM dead_letters ORDER BY time")
        return rows if len(rows) >= count else []

    return list(await until(there, "the dead letters"))


def create(workflow_id: str | None = None) -> Command:
    return commands.create_workflow(definition=definition(), workflow_id=workflow_id)


async def test_a_forged_command_gets_nothing_but_a_dead_letter(on, bus):
    """Into a partition's stream and into the inbox; a token is good until it expires.

    What is read of the dead letters holds no token.
    """
    good, over = token("designer"), token("designer", life_s=-1.0 - LEEWAY_S)
    wrong = token("admin", key=shared(b"a key that this engine does not know"))
    await publish(bus, create(made := an_id("w", 3)), good)
    [accepted] = await outcomes(bus, 1)
    assert accepted.problem is None
    await publish(bus, create(), None)
    await publish(bus, create(), wrong, COMMANDS_INBOX)
    await publish(bus, create(), over)
    found = await letters(on, 3)
    assert {row["reason"].partition(":")[0] for row in found} == {"UNAUTHENTICATED"}
    assert any("expired" in row["reason"] for row in found)
    assert all(row["tenant"] is None for row in found)
    assert not any(over.encode() in row["raw"] or wrong.encode() in row["raw"] for row in found)
    subjects = await on.pool.fetch("SELECT DISTINCT subject FROM events")
    assert [row[0] for row in subjects] == [f"workflow/{made}"], "and not one event"


async def test_everything_runs_with_tokens_and_what_may_not_be_is_in_the_trail(on, addresses, bus):
    """Agents, managers and clients show theirs; who may not is refused by name."""
    doing = simulated_agents(["worker"])
    names = [agent.agent_id for agent in doing]
    theirs = token("agent", tenant="default", subject="host", agents=names, task_roles=["worker"])
    async with host(addresses, doing, token=lambda: theirs) as there:
        await register(there.bus, doing, token=lambda: theirs)
        made = create()
        await on.client.call(made)
        begun = commands.start_execution(made.root)
        await on.client.call(begun)
        await completed(on.pool, [begun.root])
    said = await on.pool.fetch("SELECT DISTINCT message->>'actor', message->>'tenant' FROM events")
    assert {row[0] for row in said} >= {"cli", *names}
    assert {row[1] for row in said} == {"default"}
    answer = {"task": "t0", "attempt": 1, "agent": names[0]}
    attempts = {
        "FORBIDDEN": (commands.cancel_execution(begun.root), token("viewer", tenant="default")),
        "FOREIGN_TENANT": (commands.cancel_execution(begun.root), token("admin", tenant="evil")),
        "NOT_YOURS": (
            commands.command("execution", begun.root, "CompleteTask", answer),
            token("agent", tenant="default", agents=names, task_roles=["another"]),
        ),
    }
    for command, shown in attempts.values():
        await publish(bus, command, shown)
    found = await outcomes(bus, len(attempts))
    assert {one.problem["code"] for one in found} == set(attempts)
    trail = await on.pool.fetch(
        "SELECT actor, tenant, data->>'code' AS code FROM audit"
        " WHERE type = 'CommandRejected' AND subject = $1",
        f"execution/{begun.root}",
    )
    assert {(row["actor"], row["tenant"], row["code"]) for row in trail} == {
        ("ann", "default", "FORBIDDEN"),
        ("ann", "default", "FOREIGN_TENANT"),
        (names[0], "default", "NOT_YOURS"),
    }


async def test_what_was_admitted_once_is_admitted_again_by_who_may_decide_so(on, bus):
    """A dead letter that nobody ever admitted is not let in by being retried."""
    await publish(bus, create(), None)
    await publish(bus, create(), None)
    await letters(on, 2)
    name, other = [row[0] for row in await on.pool.fetch("SELECT dead_letter_id FROM dead_letters")]

    def retry(letter: str = name) -> Command:
        return commands.command("dead_letter", letter, "RetryDeadLetter", {"reason": "please"})

    with pytest.raises(Rejected, match="may not give RetryDeadLetter"):
        await on.client.call(retry().but(token=token("viewer", tenant="default")))
    await on.client.call(retry(other).but(token=token("admin", tenant="evil")))
    await on.client.call(retry())
    found = await letters(on, 3)
    assert all(row["tenant"] is None for row in found)
    statuses = "SELECT status, count(*) FROM dead_letters GROUP BY status"
    assert dict(await on.pool.fetch(statuses)) == {"open": 2, "retried": 1}
    assert await on.pool.fetchval("SELECT count(*) FROM events WHERE type = 'WorkflowCreated'") == 0


# HTTP -------------------------------------------------------------------------------------------


async def test_the_gateway_asks_who_it_is_and_shows_nobody_what_is_not_his(on, addresses):
    async with api(addresses, **ASKED) as http:

        def by(*roles: str, **more: Any) -> dict[str, str]:
            return {"Authorization": f"Bearer {token(*roles, **more)}"}

        for path in ("/api/v1/workflows", "/api/v1/executions/x", "/no/such/path"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert refused.headers["Content-Type"] == "application/problem+json"
        for bad in ("Bearer x", "Basic eDp5", by("viewer", life_s=-60.0)["Authorization"]):
            assert (await _get(http, "/api/v1/workflows", bad)).status_code == 401
        for path in ("/healthz", "/openapi.json"):
            assert (await http.get(path)).status_code == 200
        refused = await http.post("/api/v1/workflows", json=definition(), headers=by("viewer"))
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
        made = await http.post("/api/v1/workflows", json=definition(), headers=by("designer"))
        assert made.status_code == 201
        place, seen = made.headers["Location"], {"min_position": made.headers["X-Position"]}
        mine = await http.get(place, headers=by("viewer"), params=seen)
        theirs = await http.get(place, headers=by("admin", tenant="evil"), params=seen)
        nobodys = await http.get(f"{place}x", headers=by("admin", tenant="evil"), params=seen)
        assert (mine.status_code, theirs.status_code) == (200, 404)
        assert theirs.json()["code"] == nobodys.json()["code"]
        everywhere = by("admin", tenant="*") | {"X-Tenant": "acme"}
        assert (await http.get(place, headers=everywhere)).status_code == 200
        agent = await http.get(place, headers=by("agent"))
        assert (agent.status_code, agent.json()["code"]) == (403, "FORBIDDEN")
        assert (await http.get("/api/v1/agents", headers=by("agent"))).status_code == 200
        attempts = await on.pool.fetch(
            "SELECT actor, data->>'code' AS code FROM audit WHERE tenant = 'acme'"
            " AND type = 'CommandRejected'"
        )
        assert [tuple(row) for row in attempts] == [("ann", "FORBIDDEN")]


async def _get(http: httpx.AsyncClient, path: str, shown: str) -> httpx.Response:
    return await http.get(path, headers={"Authorization": shown})


async def test_a_tenant_that_asks_too_often_is_told_when_to_come_back(addresses):
    async with api(addresses, **ASKED, api_rate=2.0) as http:
        mine = [await _get(http, "/api/v1/agents", f"Bearer {token('viewer')}") for _ in range(6)]
        codes = [answer.status_code for answer in mine]
        assert codes[:4] == [200] * 4
        assert 429 in codes
        assert mine[codes.index(429)].headers["Retry-After"] == "1"
        other = await _get(http, "/api/v1/agents", f"Bearer {token('viewer', tenant='b')}")
        assert other.status_code == 200, "and nobody else hears of it"


async def test_a_client_names_the_tenant_of_its_token(on, addresses):
    told = on.worker.settings.model_copy(update={"token": token("designer", tenant="acme")})
    async with Client(addresses, settings=told) as client:
        await client.call(made := create())
    row = await on.pool.fetchrow(
        "SELECT message->>'tenant' AS tenant, message->>'actor' AS actor FROM events"
        " WHERE subject = $1",
        f"workflow/{made.root}",
    )
    assert tuple(row) == ("acme", "ann")
