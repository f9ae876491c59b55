"""Events over WebSocket: as they are committed, from any place, without gap or repeat (R50)."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from processors import commands
from processors.app import ROLES
from processors.settings import Addresses
from tests.system.engine import agents, completed, definition, engine, projected, until
from tests.system.sockets import Ear, closing, places, served, stored

ROLE = "worker"
TASKS = 4


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


async def begin(client, workflow, count=1):
    """Some executions of it."""
    made = [commands.start_execution(workflow) for _ in range(count)]
    await asyncio.gather(*(client.call(one) for one in made))
    return [one.root for one in made]


async def write(client, tasks=TASKS):
    """A workflow."""
    command = commands.create_workflow(definition=definition(tasks))
    await client.call(command)
    return command.root


@pytest.mark.parametrize("projecting", [True, False])
async def test_an_execution_is_heard_as_it_happens_and_resumed_from_anywhere(
    addresses, monkeypatch, projecting
):
    roles = set(ROLES) if projecting else set(ROLES) - {"projections"}
    async with engine(addresses, roles) as on, served(addresses, monkeypatch) as gateway:
        workflow = await write(on.client)
        [execution] = await begin(on.client, workflow)
        await begin(on.client, workflow, 3)  # others, which are not heard
        path = f"/ws/executions/{execution}"
        async with gateway.open(f"{path}?from=0") as first, gateway.open(path) as second:
            from_the_beginning, live = Ear(first), Ear(second)
            assert (await from_the_beginning.hear())["position"] == "0"
            subscribed = await live.hear()
            assert subscribed["type"] == "subscribed"
            [[partition, now]] = places(subscribed["position"]).items()
            async with agents(addresses, [ROLE]):
                await from_the_beginning.hear_until("ExecutionCompleted")
                await live.hear_until("ExecutionCompleted")
        truth = await stored(on, "subject = $1", f"execution/{execution}")
        assert from_the_beginning.raw == truth
        later = "subject = $1 AND partition = $2 AND position > $3"
        assert now > 0
        assert live.raw == await stored(on, later, f"execution/{execution}", partition, now)
        if projecting:
            await projected(on)
        for heard, event in enumerate(from_the_beginning.events, 1):
            rest = truth[heard:]
            async with gateway.open(f"{path}?from={event['position']}") as socket:
                ear = Ear(socket)
                await ear.hear()
                await ear.hear_events(len(rest))
            assert ear.raw == rest


async def test_a_workflow_is_heard_with_all_its_executions_across_partitions(
    addresses, monkeypatch
):
    """Also with those begun later, not projected yet, and after each interruption."""
    random = Random(7)
    async with (
        engine(addresses) as on,
        agents(addresses, [ROLE]),
        served(addresses, monkeypatch) as gateway,
    ):
        workflow, other = await write(on.client), await write(on.client, 2)
        executions = await begin(on.client, workflow, 3)
        path, heard, place = f"/ws/workflows/{workflow}", [], "0"
        for _ in range(6):
            async with gateway.open(f"{path}?from={place}") as socket:
                ear = Ear(socket)
                await ear.hear()
                new, *_ = await asyncio.gather(
                    begin(on.client, workflow, 3),
                    begin(on.client, other, 2),
                    ear.hear_events(random.randrange(1, 20)),
                )
                executions += new
            heard += ear.raw
            place = ear.place
        await completed(on.pool, executions)
        subjects = [f"execution/{name}" for name in executions] + [f"workflow/{workflow}"]
        truth = await stored(on, "subject = ANY($1)", subjects)
        async with (
            gateway.open(f"{path}?from={place}") as socket,
            gateway.open(f"{path}?from=0&type=ExecutionCompleted") as only,
        ):
            ear, ends = Ear(socket), Ear(only)
            await ear.hear_events(len(truth) - len(heard))
            heard += ear.raw
            await ends.hear_until("ExecutionCompleted", len(executions))
        assert len(heard) == len(set(heard)), "something was repeated"
        assert sorted(heard) == sorted(truth)
        assert {event["type"] for event in ends.events} == {"ExecutionCompleted"}


async def test_all_events_of_a_tenant_are_heard_by_type_execution_workflow_and_agent(
    addresses, monkeypatch
):
    async with (
        engine(addresses) as on,
        agents(addresses, [ROLE]),
        served(addresses, monkeypatch) as gateway,
    ):
        workflow = await write(on.client)
        executions = await begin(on.client, workflow, 4)
        await completed(on.pool, executions)
        one, two = executions[:2]
        agent = await on.pool.fetchval(
            "SELECT message->'data'->>'agent' FROM events WHERE type = 'TaskCompleted' LIMIT 1"
        )
        by_agent = "message->'data'->>'agent' = $1 OR subject = 'agent/' || $1"
        for query, where, arguments in [
            ("", "true", ()),
            (
                "&type=TaskStarted&type=TaskCompleted",
                "type = ANY($1)",
                (["TaskStarted", "TaskCompleted"],),
            ),
            (
                f"&execution={one}&execution={two}",
                "subject = ANY($1)",
                ([f"execution/{one}", f"execution/{two}"],),
            ),
            (f"&workflow={workflow}&type=TaskCompleted", "type = $1", ("TaskCompleted",)),
            (f"&agent={agent}", by_agent, (agent,)),
            ("&agent=nobody", "false", ()),
        ]:
            truth = await stored(on, where, *arguments)
            async with gateway.open(f"/api/v1/ws/events?from=0{query}") as socket:
                ear = Ear(socket)
                await ear.hear()
                await ear.hear_events(len(truth))
                assert sorted(ear.raw) == sorted(truth), query


async def test_a_flushed_redis_makes_neither_a_gap_nor_a_repeat(addresses, monkeypatch):
    async with (
        engine(addresses) as on,
        served(addresses, monkeypatch) as gateway,
        Redis.from_url(addresses.redis_url) as redis,
        gateway.open("/api/v1/ws/events?from=0") as socket,
    ):
        ear = Ear(socket)
        for _ in range(4):
            await asyncio.gather(*(write(on.client) for _ in range(10)))
            await redis.flushdb()
        truth = await stored(on, "true")
        await ear.hear_events(len(truth))
        assert sorted(ear.raw) == sorted(truth)


async def test_who_is_closed_is_told_why(addresses, monkeypatch):
    async with engine(addresses) as on, served(addresses, monkeypatch, api_sockets=3) as gateway:
        workflow = await write(on.client)
        [execution] = await begin(on.client, workflow)
        foreign = commands.create_workflow(definition=definition(1, "theirs"))
        foreign.tenant = "theirs"
        await on.client.call(foreign)
        theirs = commands.start_execution(foreign.root)
        theirs.tenant = "theirs"
        await on.client.call(theirs)
        here = f"/ws/executions/{execution}"
        for path, code in [
            ("/ws/executions/nobody", 4404),
            ("/ws/workflows/nobody", 4404),
            (f"/ws/workflows/{foreign.root}", 4404),
            (f"/ws/executions/{theirs.root}", 4404),
            (f"/ws/executions/{'x' * 300}", 4404),
            (f"{here}?from=yesterday", 4400),
            (f"{here}?from=99:1", 4400),
            (f"{here}?from=1000000", 4400),
            (f"{here}?form=0", 4400),
            ("/api/v1/ws/events?from=17", 4400),
            (f"/api/v1/ws/events?type={'x' * 201}", 4400),
            (f"/api/v1/ws/events?{'&'.join(['type=x' + str(n) for n in range(101)])}", 4400),
            (f"/api/v1/ws/events?workflow={workflow}&execution={execution}", 4400),
        ]:
            got, reason = await gateway.closed_with(path)
            assert (got, bool(reason)) == (code, True), (path, reason)
        with pytest.raises(InvalidStatus) as refused:
            await gateway.closed_with(here, origin="https://elsewhere.example")
        assert refused.value.response.status_code == 403
        async with gateway.open(here, origin=gateway.url.replace("ws:", "http:")) as socket:
            await socket.send("hello")
            assert (await closing(socket))[0] == 1003
        async with gateway.open(here) as socket:
            await socket.send("x" * 5_000)
            assert (await closing(socket))[0] == 1009

        async def nobody():
            return gateway.following.followers == 0

        await until(nobody, "the end of those that were closed")
        async with gateway.open(here), gateway.open(here), gateway.open(here) as last:

            async def all_of_them():
                return gateway.following.followers == 3

            await until(all_of_them, "three followers")
            assert (await gateway.closed_with(here))[0] == 4429
            gateway.stop.set()
            assert (await closing(last))[0] == 1001
        await until(nobody, "the end of all followers")
