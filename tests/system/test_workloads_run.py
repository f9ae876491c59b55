"""Every open workload through the whole engine: its events, its live state and its read models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aggregates.decider import Reference, fold
from processors import commands
from processors.blueprints import Blueprints, attach
from processors.partition_state import REFUSAL
from processors.settings import Addresses
from processors.vocabulary import Vocabulary
from streams.chain import verify
from streams.codec import decode_event
from tests.system import checks, read_models
from tests.system.engine import WORKLOADS, Engine, agents, completed, engine, projected

OPEN = (
    sorted(file["file"] for file in json.loads((WORKLOADS / "open/manifest.json").read_bytes()))
    if (WORKLOADS / "open/manifest.json").exists()
    else []
)

pytestmark = pytest.mark.skipif(not OPEN, reason=f"the workloads are not at {WORKLOADS}")


def definitions(name: str) -> list[dict[str, Any]]:
    found = json.loads((WORKLOADS / "open" / name).read_bytes())
    return found if isinstance(found, list) else [found]


async def run(
    on: Engine, addresses: Addresses, documents: list[dict[str, Any]], factor: float = 0.0
) -> dict[str, dict[str, Any]]:
    """Create and execute all, at once; returns the definition of each execution."""
    roles = {role for document in documents for role in document["agents"]}
    creating = [commands.create_workflow(definition=document) for document in documents]
    async with agents(addresses, roles, factor):
        await asyncio.gather(*map(on.client.call, creating))
        starting = [commands.start_execution(command.root) for command in creating]
        await asyncio.gather(*map(on.client.call, starting))
        executions = [command.root for command in starting]
        await completed(on.pool, executions)
    return dict(zip(executions, documents, strict=True))


async def fold_equals_live(on: Engine, log_events: dict[int, list[dict[str, Any]]]) -> int:
    """Every aggregate in memory is what its stored events fold to; returns how many there are."""
    names, plans, processor = Vocabulary(), Blueprints(on.client.log), on.processor
    await processor.drain()
    checked = 0
    for partition, events in log_events.items():
        part = processor.parts[partition]
        assert part.head == part.cursor.position == len(events)
        histories: dict[str, list[Any]] = {}
        for stored in await on.client.log.read(partition, 0, len(events)):
            decoded = decode_event(stored.message)
            histories.setdefault(decoded.subject, []).append(decoded)
        assert part.held.keys() <= histories.keys()
        for subject, history in histories.items():
            kind, _, root = subject.partition("/")
            decider = names.deciders[kind]
            facts = [names.event(event) for event in history if event.type != REFUSAL]
            wanted: set[Reference] = {r for f in facts if (r := decider.reference(f)) is not None}
            found = await plans.find(wanted)
            for fact in facts:
                attach(decider, fact, found)
            assert content(fold(decider, root, facts)) == content(part.held[subject].state)
            assert part.held[subject].version == len(facts)
            checked += 1
    return checked


def content(state: Any) -> dict[str, Any]:
    """All that a state holds; of a plan its ids, since it is shared and compared elsewhere."""
    fields = {name: getattr(state, name) for name in type(state).__slots__}
    if fields.get("plan") is not None:
        fields["plan"] = fields["plan"].ids
    return fields


async def whole(on: Engine, ran: dict[str, dict[str, Any]]) -> None:
    """All that must hold after these executions and nothing else have run."""
    log_events = await checks.history(on.pool)
    subjects = checks.by_subject(log_events)
    for name, document in ran.items():
        checks.execution(subjects.pop(f"execution/{name}"), document)
    kinds = [event["type"] for events in subjects.values() for event in events]
    assert set(kinds) == {"WorkflowCreated"}
    assert len(kinds) == len(subjects) == len(ran), "nothing else happened"
    await checks.commits(on.pool)
    for partition in range(16):
        assert (await verify(on.client.log, partition)).ok
    assert await fold_equals_live(on, log_events) == 2 * len(ran)
    await projected(on)
    counted = await read_models.equal_the_fold(on.pool, log_events)
    assert counted["executions"] == counted["workflows"] == len(ran)
    assert counted["tasks"] == sum(len(document["tasks"]) for document in ran.values())
    assert await checks.mirror(on.pool, on.client.bus.redis) > 0
    counters = on.processor.counters
    assert (counters.refusals, counters.dead_letters, counters.fenced) == (0, 0, 0)
    assert await on.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


@pytest.mark.parametrize("name", OPEN)
async def test_an_open_workload_runs_to_completed(name: str, database: str, redis_url: str) -> None:
    """R5, R10, R33, I1-I8, I11, I13, I17: accepted as it stands, and exactly the right events."""
    addresses = Addresses(database, redis_url)
    async with engine(addresses) as on:
        await whole(on, await run(on, addresses, definitions(name)))


async def test_tasks_that_take_their_time_run_side_by_side(database: str, redis_url: str) -> None:
    """R10, I17: with agents that sleep, siblings overlap and the whole takes the longest path."""
    addresses = Addresses(database, redis_url)
    [document] = definitions("nfcore-viralrecon.json")
    known = {f["file"]: f for f in json.loads((WORKLOADS / "open/manifest.json").read_bytes())}
    seconds = known["nfcore-viralrecon.json"]["critical_path_seconds"]
    factor = 1.0 / seconds
    async with engine(addresses) as on:
        begun = asyncio.get_running_loop().time()
        ran = await run(on, addresses, [document], factor)
        took = asyncio.get_running_loop().time() - begun
        await whole(on, ran)
        at_once = most = 0
        [name] = ran
        for event in checks.by_subject(await checks.history(on.pool))[f"execution/{name}"]:
            at_once += {"TaskStarted": 1, "TaskCompleted": -1}.get(event["type"], 0)
            most = max(most, at_once)
    assert took >= 1.0, "nothing starts before what it waits for has ended"
    assert most > 5, "siblings run at the same time"
