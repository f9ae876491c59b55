"""What the owner of a partition keeps in memory is what the log says, however it was read."""

from __future__ import annotations

from typing import Any

import pytest

from processors.partition_loading import due, evict
from processors.partition_state import REFUSAL
from streams.chain import verify
from streams.logs.memory import MemoryLog
from streams.message import Command, Outcome
from tests.partitions import Owner, answer, create, start
from tests.tallies import TALLY, add


@pytest.fixture
async def owner() -> Owner:
    return await Owner().take()


async def run_through(owner: Owner, *roots: str) -> None:
    """Each execution from its start to its end, one after the other's step."""
    await owner.say(create())
    await owner.say(*[start(root) for root in roots])
    for task in ("a", "b"):
        for kind in ("StartTask", "CompleteTask"):
            await owner.say(*[answer(kind, task, execution_id=root) for root in roots])
            await owner.say(answer(kind, "z", execution_id=roots[0]))


async def test_versions_are_contiguous_and_refusals_have_none_of_their_own(owner):
    """I1, I2."""
    await run_through(owner, "e1", "e2")
    events = await owner.events()
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    seen: dict[str, int] = {}
    for event in events:
        if event.type == REFUSAL:
            assert event.version == seen[event.subject]
        else:
            assert event.version == seen.get(event.subject, 0) + 1
            seen[event.subject] = event.version
    assert seen == {"workflow/w": 1, "execution/e1": 10, "execution/e2": 10}
    assert (await verify(owner.log, 0)).ok


@pytest.mark.parametrize("saved_after", [0, 1, 2, 5, 9])
async def test_snapshot_and_tail_are_the_fold_from_the_start(saved_after):
    """I13: wherever the snapshot was made, and with the versions that follow."""
    subjects = ["workflow/w", "execution/e1", "execution/e2"]
    live = await Owner().take()
    steps = 0

    async def say(*said: Command) -> list[Outcome]:
        nonlocal steps
        if steps == saved_after:
            await live.save()
        steps += 1
        return await Owner.say(live, *said)

    live.say = say  # type: ignore[method-assign]
    await run_through(live, "e1", "e2")
    expected = [await live.state(subject) for subject in subjects]
    restored = await Owner(live.log).take()
    assert (restored.part.snapshot > 0) == (saved_after > 0)
    assert [await restored.state(subject) for subject in subjects] == expected
    folded = Owner(live.log)
    await folded.take()
    folded.part.cursor.snapshot = folded.part.snapshot = 0
    folded.part.tail.clear()
    for event in await live.events():
        folded.part.tail.setdefault(event.subject, []).append(event)
    assert [await folded.state(subject) for subject in subjects] == expected


@pytest.mark.parametrize("loaded_before", [True, False])
async def test_a_snapshot_after_a_restart_has_what_recovery_had_read(owner, loaded_before):
    """I13: whether somebody has asked for it since or not."""
    await run_through(owner, "e1", "e2")
    expected = [await owner.state(f"execution/{root}") for root in ("e1", "e2")]
    await owner.take()
    if loaded_before:
        await owner.state("execution/e1")
    await owner.save()
    await owner.take()
    assert owner.part.tail == {}
    assert [await owner.state(f"execution/{root}") for root in ("e1", "e2")] == expected


async def test_what_is_forgotten_after_a_snapshot_is_loaded_again(owner, monkeypatch):
    monkeypatch.setattr("processors.partition_loading.AGGREGATES_MAX", 1)
    await owner.say(create())
    await owner.say(start("e1"), start("e2"))
    before = [await owner.state("execution/e1"), await owner.state("execution/e2")]
    await owner.save()
    assert len(owner.part.held) == 1
    assert [await owner.state("execution/e1"), await owner.state("execution/e2")] == before
    [outcome] = await owner.say(answer("CompleteTask", "a", execution_id="e1"))
    assert outcome.problem is None
    assert (await owner.state("execution/e1"))[0] == before[0][0] + 4
    await owner.take()
    assert (await owner.state("execution/e1"))[0] == before[0][0] + 4


async def test_large_states_are_forgotten_by_their_bytes(owner, monkeypatch):
    """A count bounds nothing where states are large; what is loaded again counts as well."""
    await owner.say(create())
    await owner.say(start("e1"), start("e2"))
    await owner.save()
    sizes = {subject: held.size for subject, held in owner.part.held.items()}
    assert all(size > 0 for size in sizes.values())
    before = await owner.state("execution/e1")
    bound = sum(sizes.values()) - 1
    monkeypatch.setattr("processors.partition_loading.HELD_BYTES_MAX", bound)
    evict(owner.part)
    assert owner.part.held.keys() == set(list(sizes)[1:])
    monkeypatch.setattr("processors.partition_loading.HELD_BYTES_MAX", 0)
    evict(owner.part)
    assert owner.part.held == {}
    assert await owner.state("execution/e1") == before
    assert owner.part.held["execution/e1"].size == sizes["execution/e1"]


async def test_a_snapshot_is_due_by_bytes_where_events_are_large(owner, monkeypatch):
    await owner.say(create())
    await owner.say(start("e1"))
    await owner.take()  # what recovery has read counts
    assert owner.part.unsaved > 0
    assert not due(owner.part)
    monkeypatch.setattr("processors.partition_loading.SNAPSHOT_BYTES", owner.part.unsaved)
    assert due(owner.part)


async def test_what_was_folded_once_is_not_folded_again_after_it_was_forgotten(monkeypatch):
    """I2, I13: the events that recovery read are older than the snapshot made since."""
    monkeypatch.setattr("processors.partition_loading.AGGREGATES_MAX", 0)
    owner = await Owner(deciders=[TALLY]).take()
    await owner.say(add(1), add(2))
    await owner.take()
    assert await owner.state("tally/t") == (2, [1, 2])
    await owner.save()
    assert owner.part.held == {}
    assert await owner.state("tally/t") == (2, [1, 2])


async def test_what_has_changed_since_the_snapshot_is_not_forgotten(owner, monkeypatch):
    monkeypatch.setattr("processors.partition_loading.AGGREGATES_MAX", 0)
    await owner.say(create("v"), create("w"))
    evict(owner.part)
    assert len(owner.part.held) == 2
    await owner.save()
    assert owner.part.held == {}


async def test_a_snapshot_that_ends_while_a_batch_is_decided_takes_nothing_from_it(monkeypatch):
    """`evict` runs beside the decisions; what they had loaded stays theirs."""
    monkeypatch.setattr("processors.partition_loading.AGGREGATES_MAX", 0)

    class Evicting(MemoryLog):
        """At this log, the snapshot ends just when definitions are looked up."""

        async def definitions(self, wanted: Any, bodies: bool = True) -> Any:
            evict(owner.part)
            return await super().definitions(wanted, bodies)

    owner = await Owner(Evicting(1)).take()
    await owner.say(create())
    await owner.say(start("e1"))
    await owner.save()
    await owner.state("execution/e1")
    outcomes = await owner.say(answer("CompleteTask", "a", execution_id="e1"), start("e2"))
    assert [o.problem for o in outcomes] == [None, None]
    assert (await owner.state("execution/e1"))[0] == 7


async def test_an_outage_while_aggregates_are_loaded_loses_nothing_of_them():
    """F20: what waits to be folded is folded at the next try."""

    class Away(MemoryLog):
        away = False

        async def definitions(self, wanted: Any, bodies: bool = True) -> Any:
            if self.away:
                raise ConnectionError
            return await super().definitions(wanted, bodies)

    log = Away(1)
    owner = await Owner(log).take()
    await run_through(owner, "e1", "e2")
    expected = await owner.state("execution/e1")
    await owner.take()
    log.away = True
    with pytest.raises(ConnectionError):
        await owner.state("execution/e1")
    log.away = False
    assert await owner.state("execution/e1") == expected
