"""What crashes is put aside with its bytes; nothing of it stays behind, and nobody else waits."""

from __future__ import annotations

import pytest

from aggregates import DECIDERS
from processors import partition_loading
from processors.decide import CRASHES_MAX
from processors.vocabulary import Vocabulary
from streams.codec import encode_command
from streams.log import WRITER
from tests.deciding import World
from tests.partitions import Owner, answer, create, start
from tests.tallies import BREAKING, TALLY, Added, add


@pytest.fixture
def world() -> World:
    return World()


async def test_events_that_break_the_state_leave_nothing_of_themselves(world):
    """F33, I2, I15: it is tried so often, each time on a state read anew, and then put aside."""
    breaking = add(BREAKING + 1)
    world.publish(add(1), breaking, add(2), add(3, "another"))
    await (await world.me.begin()).run()
    assert await world.numbers() == [1, 2, 3]
    await world.whole()
    part = world.me.processor.parts[0]
    assert part.held["tally/t"].state == [1, 2]
    assert part.cursor.epoch == 1 + CRASHES_MAX, "dropped and taken again for each try"
    assert world.me.processor.crashes == {0: {}}
    [letter] = world.log.dead_letters.values()
    assert letter.raw == encode_command(breaking)
    problems = {o.command_id: o.problem for o in world.outcomes() if o.problem}
    assert {one: problem["code"] for one, problem in problems.items()} == {breaking.id: "INTERNAL"}


async def test_what_was_decided_before_a_crash_in_the_same_batch_takes_effect_once(world):
    """F33, I4."""
    world.publish(*[add(n) for n in range(1, 6)], add(BREAKING + 1), *[add(n) for n in (6, 7)])
    await (await world.me.begin()).run()
    assert await world.numbers() == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(o.first for o in world.outcomes() if not o.problem) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_command_that_is_given_again_when_the_bug_is_gone_takes_effect(world, monkeypatch):
    """F33, R32: that is what the dead letter is for."""
    world.publish(add(BREAKING + 1))
    await (await world.me.begin()).run()
    [letter] = world.log.dead_letters.values()
    monkeypatch.setattr("tests.tallies.BREAKING", 10**6)
    world.publish(letter.raw)
    await world.me.run()
    assert await world.numbers() == [BREAKING + 1]


# Histories that this version of the code cannot read --------------------------------------------


class _Old(Vocabulary):
    """The vocabulary of a version that does not know this type of event."""

    def __init__(self, unknown: str) -> None:
        super().__init__((*DECIDERS, TALLY))
        self._events = {key: kind for key, kind in self._events.items() if key[1] != unknown}


async def test_old_code_stops_at_an_event_that_it_does_not_know():
    """F42: for that aggregate only; its commands are put aside, and decided after the upgrade."""
    owner = await Owner(deciders=(*DECIDERS, TALLY)).take()
    await owner.say(add(1), create())
    new = owner.names
    owner.names = _Old("Added")
    await owner.take()
    stopped = add(2)
    refused, well = await owner.say(stopped, start())
    assert (refused.problem or {})["code"] == "UNREADABLE"
    assert "Added" in (refused.problem or {})["detail"]
    assert well.problem is None
    [letter] = owner.log.dead_letters.values()
    assert letter.raw == encode_command(stopped)
    await owner.save()
    owner.names = new
    await owner.take()
    [done] = await owner.say(stopped)
    assert done.problem is None
    assert await owner.state("tally/t") == (2, [1, 2])


async def test_an_event_with_fields_that_are_not_known_stops_its_aggregate_only(monkeypatch):
    """F42."""
    owner = await Owner(deciders=(*DECIDERS, TALLY)).take()
    await owner.say(add(1))
    monkeypatch.setattr(Added, "__init__", lambda self, number: None)
    await owner.take()
    [refused, well] = await owner.say(add(2), create())
    assert (refused.problem or {})["code"] == "UNREADABLE"
    assert well.problem is None


# Snapshots that cannot be used ------------------------------------------------------------------


def spoil(owner: Owner, subject: str, how: str) -> None:
    """What an operator, a disk or another version may have done to a saved state."""
    row = owner.log._snapshots[WRITER, subject]
    match how:
        case "a byte":
            middle = len(row.state) // 2
            state = row.state[:middle] + bytes([row.state[middle] ^ 1]) + row.state[middle + 1 :]
        case "nothing":
            state = b"{}"
        case "unsealed":
            state = b'{"revision":1,"digest":"x","archived":false}'
        case "of another":
            row = owner.log._snapshots[WRITER, "tally/u"]._replace(subject=subject)
            state = row.state
        case "another version of it":
            row, state = row._replace(version=row.version + 1), row.state
        case "gone":
            del owner.log._snapshots[WRITER, subject]
            return
    owner.log._snapshots[WRITER, subject] = row._replace(state=state)


DAMAGES = ["a byte", "nothing", "unsealed", "of another", "another version of it"]


# With nothing after it, a row that is gone cannot be told from one that never was.
@pytest.mark.parametrize(
    ("how", "events_after"), [*((how, n) for how in DAMAGES for n in (0, 2)), ("gone", 2)]
)
async def test_a_snapshot_that_cannot_be_used_is_folded_from_the_log(how, events_after):
    """F47: the same state, and it is counted."""
    owner = await Owner(deciders=(*DECIDERS, TALLY)).take()
    await owner.say(add(1), add(2), add(7, "u"))
    await owner.save()
    if events_after:
        await owner.say(*[add(n) for n in range(3, 3 + events_after)])
    expected = await owner.state("tally/t")
    spoil(owner, "tally/t", how)
    await owner.take()
    assert await owner.state("tally/t") == expected
    assert owner.part.fallbacks == 1
    assert await owner.state("tally/u") == (1, [7])
    assert owner.part.fallbacks == 1
    await owner.say(add(9))
    await owner.save()
    await owner.take()
    assert (await owner.state("tally/t"))[1] == [*expected[1], 9]
    assert owner.part.fallbacks == 0, "saved anew, it is of use again"


async def test_a_snapshot_of_another_version_of_the_code_is_folded_from_the_log(monkeypatch):
    """F47, F42: also a large one, page after page, with what its events refer to."""
    owner = await Owner().take()
    await owner.say(create())
    await owner.say(start())
    await owner.save()
    await owner.say(answer("CompleteTask", "a"))
    expected = await owner.state("execution/e")
    monkeypatch.setattr(type(owner.names.deciders["execution"]), "form", "another@2")
    monkeypatch.setattr(partition_loading, "READ_EVENTS_MAX", 3)
    await owner.take()
    assert await owner.state("execution/e") == expected
    assert owner.part.fallbacks == 1


async def test_a_state_that_cannot_be_loaded_is_folded_from_the_log(monkeypatch):
    """F47: the seal is whole, yet this code cannot read what it says."""
    owner = await Owner(deciders=(*DECIDERS, TALLY)).take()
    await owner.say(add(1))
    await owner.save()
    row = owner.log._snapshots[WRITER, "tally/t"]
    from processors.saved import seal

    owner.log._snapshots[WRITER, "tally/t"] = seal("tally/t", row.version, TALLY.form, 5)
    await owner.take()
    assert await owner.state("tally/t") == (1, [1])
    assert owner.part.fallbacks == 1
