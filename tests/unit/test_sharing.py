"""Live workers share a consumer's partitions: each has its own, whoever comes and goes. R33."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from streams.leases import GIVEN_AT_ONCE, STUBBORN_LEASES, Leases
from streams.log import WRITER, LogUnavailable
from streams.logs.memory import MemoryLog
from streams.members import Members, weight

LEASE_S = 6.0
PARTITIONS = 16


class Town:
    """Workers that share a log and a clock, and hand over as a feed would."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self.log = MemoryLog(partitions)
        self.now = 1_000.0
        self.workers: dict[str, Leases] = {}

    def worker(self, name: str) -> Leases:
        made = Leases(self.log, WRITER, name, LEASE_S, lambda: self.now)
        self.workers[name] = made
        return made

    async def arrive(self, name: str) -> Leases:
        """A worker starts: its first round."""
        made = self.worker(name)
        await made.round()
        return made

    async def round(self, after_s: float = LEASE_S / 3) -> None:
        """Everybody's round, some time later; what is to leave is handed over."""
        self.now += after_s
        for one in list(self.workers.values()):
            await one.round()
            one._changed.clear()
            one._lost.clear()
            await one.hand_over(set(one.leaving))

    async def settle(self) -> None:
        for _ in range(2 * PARTITIONS):
            await self.round()

    def shares(self) -> dict[str, set[int]]:
        return {name: set(one.held) for name, one in self.workers.items()}


def rightful(names: list[str], partitions: int = PARTITIONS) -> dict[str, set[int]]:
    shares: dict[str, set[int]] = {name: set() for name in names}
    for partition in range(partitions):
        shares[max(names, key=lambda n: weight(n, partition))].add(partition)
    return shares


@pytest.fixture
def town() -> Town:
    return Town()


async def test_a_single_worker_owns_everything_at_once(town):
    one = await town.arrive("one")
    assert set(one.held) == set(range(PARTITIONS))


async def test_a_second_one_gets_its_share_a_few_partitions_at_a_time(town):
    one = await town.arrive("one")
    two = await town.arrive("two")
    assert set(two.held) == set(), "nothing is taken from a live owner"
    wanted = rightful(["one", "two"])
    while set(two.held) != wanted["two"]:
        before = len(two.held)
        await town.round()
        assert len(one.held) >= PARTITIONS - before - GIVEN_AT_ONCE
        assert len(two.held) <= before + GIVEN_AT_ONCE
        assert len(one.held) + len(two.held) == PARTITIONS
    assert town.shares() == wanted
    moved = [cursor.epoch for cursor in await town.log.cursors(WRITER)]
    await town.settle()
    assert moved == [c.epoch for c in await town.log.cursors(WRITER)], "and then nothing moves"
    assert sum(moved) == PARTITIONS + len(wanted["two"]), "each moved once"


async def test_who_stops_is_followed_by_those_whose_turn_it_is(town):
    for name in ("one", "two", "three"):
        await town.arrive(name)
    await town.settle()
    assert town.shares() == rightful(["one", "two", "three"])
    before = [cursor.epoch for cursor in await town.log.cursors(WRITER)]
    gone = town.workers.pop("three")
    left = set(gone.held)
    await gone.stop()
    await town.round(0.0)
    assert town.shares() == rightful(["one", "two"])
    after = [cursor.epoch for cursor in await town.log.cursors(WRITER)]
    assert {p for p in range(PARTITIONS) if before[p] != after[p]} == left, "its share and no other"


async def test_who_dies_is_followed_after_the_lease_time(town):
    """F24."""
    for name in ("one", "two", "three"):
        await town.arrive(name)
    await town.settle()
    town.workers.pop("three")
    await town.round(0.0)  # they see its last beat
    await town.round(LEASE_S - 1)
    assert town.shares() != rightful(["one", "two"])
    await town.round(1)
    assert town.shares() == rightful(["one", "two"])
    assert set(await town.log.meet(WRITER, "one")) == {"one", "two"}, "its row is gone"


async def test_who_was_only_slow_is_a_member_again(town):
    one, two = await town.arrive("one"), await town.arrive("two")
    await town.settle()
    slow = town.workers.pop("two")
    for _ in range(4):
        await town.round()
    assert set(one.held) == set(range(PARTITIONS))
    town.workers["two"] = slow
    await town.settle()
    assert town.shares() == rightful(["one", "two"])
    assert two.counters.lost == len(rightful(["one", "two"])["two"])


async def test_what_the_rightful_member_does_not_take_is_taken_by_another(town):
    """It lives and beats, and yet does not take: nobody waits for longer than a lease."""
    one, idle = await town.arrive("one"), Members(town.log, WRITER, "idle", LEASE_S)
    its = rightful(["one", "idle"])["idle"]
    assert its, "or this shows nothing"
    for _ in range(12):
        await idle.meet(town.now)
        await town.round()
    assert set(one.held) == set(range(PARTITIONS))
    epochs = [cursor.epoch for cursor in await town.log.cursors(WRITER)]
    for _ in range(12):
        await idle.meet(town.now)
        await town.round()
    assert epochs == [c.epoch for c in await town.log.cursors(WRITER)], "nor offered at each round"
    for _ in range(3 * STUBBORN_LEASES):
        await idle.meet(town.now)
        await town.round()
    assert epochs != [c.epoch for c in await town.log.cursors(WRITER)], "but now and then"


async def test_what_is_leaving_can_still_be_lost(town):
    one = await town.arrive("one")
    await town.arrive("two")
    await one.round()
    assert one.leaving
    partition = min(one.leaving)
    one.forget(partition)
    assert partition not in one.leaving
    await one.hand_over({partition})
    assert (await town.log.cursors(WRITER))[partition].owner == "one", "it had no right to it"


async def test_an_outage_of_the_log_ends_nobodys_lease(town):
    """F20: nobody could beat meanwhile, so nobody has missed one."""
    one, two = await town.arrive("one"), await town.arrive("two")
    await town.settle()
    before = [cursor.epoch for cursor in await town.log.cursors(WRITER)]
    for each in (one, two):
        each._missed = True  # a round has failed
    town.now += 100 * LEASE_S
    await two.round()
    await one.round()
    assert before == [c.epoch for c in await town.log.cursors(WRITER)]
    town.workers.pop("one")
    await town.round(0.0)
    await town.round(LEASE_S)
    assert set(two.held) == set(range(PARTITIONS)), "and the wait goes on after it"


async def test_it_is_beating_while_rounds_succeed(town, monkeypatch):
    one = town.worker("one")
    assert not one.beating, "it has not begun"
    await one.round()
    assert one.beating
    town.now += LEASE_S - 0.1
    assert one.beating

    async def away(*_: object) -> set[int]:
        raise LogUnavailable("away")

    monkeypatch.setattr(town.log, "beat", away)
    with pytest.raises(LogUnavailable):
        await one.round()
    town.now += 0.1
    assert not one.beating
    monkeypatch.undo()
    await one.round()
    assert one.beating
    await one.stop()
    assert not one.beating


async def test_the_next_round_comes_when_a_silent_one_has_waited_long_enough(town):
    """F24: not a whole round later."""
    one, two = await town.arrive("one"), await town.arrive("two")
    await town.settle()
    town.workers.pop("two")
    await town.round(0.0)
    silent = town.now
    assert one._expiry == silent + LEASE_S
    await town.round()
    assert one._expiry == silent + LEASE_S
    town.now = silent + LEASE_S
    await one.round()
    assert set(one.held) == set(range(PARTITIONS))
    assert two.held


@given(some.lists(some.uuids().map(str), min_size=1, max_size=12, unique=True), some.data())
def test_one_that_goes_moves_only_its_own_share(names, data):
    gone = data.draw(some.sampled_from(names))
    before = rightful(names)
    if rest := [name for name in names if name != gone]:
        after = rightful(rest)
        assert all(before[name] <= after[name] for name in rest)


def test_shares_are_about_equal_and_stable():
    names = [f"worker-{n}" for n in range(10)]
    sizes = Counter({name: len(share) for name, share in rightful(names, 4_096).items()})
    assert min(sizes.values()) > 300
    assert max(sizes.values()) < 520
    assert weight("worker-1", 7).hex() == "013cd5d26ab4b247", "other releases rank the same"
