"""Plans kept in memory: within a bound, each once, the newest by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aggregates.decider import Reference
from processors.blueprints import Blueprints
from streams.log import WRITER, DefinitionRow, Share
from streams.logs.memory import MemoryLog
from tests.flows import definition
from tests.partitions import NOW


class Asked(MemoryLog):
    """A log that notes which bodies were asked for, and lets others run meanwhile."""

    def __init__(self) -> None:
        super().__init__(1)
        self.bodies: list[tuple[str, int]] = []

    async def definitions(
        self, wanted: Sequence[tuple[str, int]], bodies: bool = True
    ) -> list[DefinitionRow]:
        if bodies:
            self.bodies += wanted
        await asyncio.sleep(0)
        return await super().definitions(wanted, bodies)


@pytest.fixture
async def log() -> Asked:
    """Workflows `v` and `w` of three tasks, `w` in two revisions."""
    log = Asked()
    [cursor] = await log.take([(await log.cursors(WRITER))[0]], "me")
    share = Share(0, cursor.epoch, 0, 1, b"")
    for workflow_id, revision in (("v", 1), ("w", 1), ("w", 2)):
        made = definition({"a": [], "b": [], "c": []}, name=f"{workflow_id}{revision}")
        row = DefinitionRow(workflow_id, revision, "acme", made.digest, False, made.to_bytes())
        share.definitions.append(row)
    assert await log.append([share], NOW)
    return log


async def archive(log: Asked, workflow_id: str) -> None:
    cursor = (await log.cursors(WRITER))[0]
    share = Share(0, cursor.epoch, 0, cursor.commits + 1, cursor.hash, archived=[workflow_id])
    assert await log.append([share], NOW)


V1, W1, W2, NEWEST = (Reference(*pair) for pair in (("v", 1), ("w", 1), ("w", 2), ("w", 0)))


async def test_a_revision_is_read_once(log):
    plans = Blueprints(log)
    first = await plans.find([V1, W1])
    again = await plans.find([W1, V1], fresh=True)
    assert first == again
    assert (first[W1].plan.definition.name, first[W1].tenant) == ("w1", "acme")
    assert sorted(log.bodies) == [("v", 1), ("w", 1)]


async def test_the_newest_is_asked_for_every_time_and_its_body_once(log):
    """R7."""
    plans = Blueprints(log)
    for _ in range(2):
        found = await plans.find([NEWEST, W1, V1], fresh=True)
        assert {reference: one.revision for reference, one in found.items()} == {
            NEWEST: 2,
            W1: 1,
            V1: 1,
        }
    assert len(log.bodies) == 3


async def test_what_was_archived_meanwhile_is_known(log):
    """R7: though plans are kept."""
    plans = Blueprints(log)
    assert not (await plans.find([NEWEST], fresh=True))[NEWEST].archived
    await archive(log, "w")
    assert (await plans.find([NEWEST], fresh=True))[NEWEST].archived
    assert (await plans.find([W1], fresh=True))[W1].archived
    assert not (await plans.find([V1], fresh=True))[V1].archived


@pytest.mark.parametrize("fresh", [True, False])
async def test_what_does_not_exist_is_left_out(log, fresh):
    plans = Blueprints(log)
    wanted = [Reference("w", 3), Reference("x", 0), W1]
    assert list(await plans.find(wanted, fresh)) == [W1]


async def test_the_least_recently_used_leaves_first(log, monkeypatch):
    """I16."""
    monkeypatch.setattr("processors.blueprints.TASKS_MAX", 6)
    plans = Blueprints(log)
    for wanted in (V1, W1, V1, W2):
        assert wanted in await plans.find([wanted])
    assert log.bodies == [tuple(one) for one in (V1, W1, W2)]
    await plans.find([V1])
    assert len(log.bodies) == 3
    await plans.find([W1])
    assert len(log.bodies) == 4


async def test_one_plan_may_be_larger_than_all_should_be_together(log, monkeypatch):
    monkeypatch.setattr("processors.blueprints.TASKS_MAX", 1)
    plans = Blueprints(log)
    assert (await plans.find([V1, W1])).keys() == {V1, W1}
    assert (await plans.find([W2])).keys() == {W2}


async def test_two_that_ask_at_once_count_it_once(log, monkeypatch):
    """I16: or the account of what is kept would only grow, and nothing be kept any more."""
    monkeypatch.setattr("processors.blueprints.TASKS_MAX", 6)
    plans = Blueprints(log)
    await asyncio.gather(*(plans.find([V1]) for _ in range(5)))
    log.bodies.clear()
    await plans.find([W1])
    await plans.find([V1])
    assert log.bodies == [tuple(W1)]


async def test_large_definitions_are_planned_beside_the_loop_and_nobody_loses_one(log, monkeypatch):
    """What one finds, another may push out while a thread plans the rest."""
    monkeypatch.setattr("processors.blueprints.BODY_BYTES_MAX", 0)
    monkeypatch.setattr("processors.blueprints.TASKS_MAX", 3)
    plans = Blueprints(log)
    await plans.find([V1])
    wanted = [[V1, W1], [W2], [W1], [V1, W2]]
    found = await asyncio.gather(*(plans.find(some) for some in wanted))
    assert [set(one) for one in found] == [set(some) for some in wanted]
