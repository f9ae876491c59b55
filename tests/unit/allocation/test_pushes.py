"""Tasks for which an agent is chosen: where they go, what waits, and what moves on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.agents.wire import decode_assignment, encode_assignment
from processors.allocation import pushes as module
from processors.allocation.directory import LOST_S
from processors.allocation.need import Need
from processors.allocation.pushes import GIVEN_S
from processors.managers.manager import Ask, Recheck, Settled, Withdraw
from streams.partition import pushed_key, tasks_key
from tests.unit.allocation.world import World, task

LEAST = Need("least_loaded")
ONE, TWO, THREE = task("one"), task("two"), task("three")
ROLE = tasks_key("default", "r")


async def two_hosts() -> World:
    """Two hosts that live, with an agent each."""
    world = World()
    world.host("g", {"id": "a"})
    world.host("h", {"id": "b"})
    await world.seen("g", "h")
    return world


def given_to(world: World, host: str) -> list[tuple[str, str | None, int]]:
    """The tasks in a host's stream: name, agent, delivery."""
    found = map(decode_assignment, world.bus.messages(pushed_key(host)))
    return [(one.task_id, one.agent, one.delivery) for one in found]


async def test_a_task_goes_to_the_agent_that_is_chosen() -> None:
    """R12."""
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST), Ask(TWO, LEAST), Ask(THREE)])
    assert given_to(world, "g") == [("one", "a", 0)]
    assert given_to(world, "h") == [("two", "b", 0)]
    assert world.bus.messages(ROLE) == [encode_assignment(THREE)], "nobody chooses: they pull"


async def test_what_nobody_can_take_waits_and_goes_as_soon_as_somebody_can() -> None:
    """R30: graceful degradation."""
    world = await two_hosts()
    await world.sender.send([Ask(one, LEAST) for one in (ONE, TWO, THREE)])
    pushes = world.sender.pushes
    assert pushes is not None
    assert (pushes.waiting, pushes.waits(THREE.message_id)) == (1, True)
    await world.sender.send([Settled(TWO)])
    assert given_to(world, "h")[1:] == [("three", "b", 0)]
    assert pushes.waiting == 0


async def test_a_role_without_an_agent_waits_until_there_is_one() -> None:
    """R30."""
    world = World()
    await world.watch.look()
    await world.sender.send([Ask(ONE, LEAST), Ask(task("other", "s"), LEAST)])
    await world.pass_(3)
    world.host("h", {"id": "b"})
    await world.pass_(1)
    assert given_to(world, "h") == [("one", "b", 0)]
    assert world.sender.pushes is not None
    assert world.sender.pushes.waiting == 1


@pytest.mark.parametrize("over", [Settled, Withdraw])
async def test_what_is_over_waits_no_more(over: type[Settled | Withdraw]) -> None:
    world = World()
    await world.watch.look()
    await world.sender.send([Ask(ONE, LEAST), over(ONE)])
    world.host("h", {"id": "b"})
    await world.pass_(1)
    assert given_to(world, "h") == []


async def test_what_waits_for_a_partition_that_is_not_ours_any_more_is_forgotten() -> None:
    world = World()
    await world.watch.look()
    await world.sender.send([Ask(ONE, LEAST)])
    world.epoch = None
    world.host("h", {"id": "b"})
    await world.pass_(1)
    assert (given_to(world, "h"), world.sender.pushes and world.sender.pushes.waiting) == ([], 0)


async def test_a_repeat_goes_where_the_task_went_before() -> None:
    """I4: Redis did not answer, and the effects are sent once more."""
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST)])
    await world.sender.send([Ask(ONE, LEAST), Ask(TWO, LEAST)])
    assert given_to(world, "g") == [("one", "a", 0)] * 2
    assert given_to(world, "h") == [("two", "b", 0)]


async def test_the_tasks_of_a_lost_host_go_to_others_under_a_higher_delivery() -> None:
    """R30, F34, I18: the same attempt; what the lost one answers to its delivery is refused."""
    world = World()
    world.host("g", {"id": "a", "capacity": 2})
    await world.seen("g")
    await world.sender.send([Ask(ONE, LEAST), Ask(TWO, LEAST)])
    world.host("h", {"id": "b", "capacity": 1})
    await world.pass_(LOST_S - 1, "h")
    assert given_to(world, "h") == []
    await world.pass_(1, "h")
    [(name, agent, delivery)] = given_to(world, "h")
    assert (name, agent, delivery) == ("one", "b", (3 << 16 | 1) << 8)
    await world.sender.send([Settled(ONE)])
    await world.pass_(1, "h")
    assert given_to(world, "h")[1:] == [("two", "b", (3 << 16 | 1) << 8)]
    assert world.sender.asked_again == 2


async def test_tasks_of_an_agent_that_its_host_no_longer_has_go_to_others() -> None:
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST)])
    world.host("g", {"id": "c"})
    await world.pass_(1, "h")
    assert [agent for _, agent, _ in [*given_to(world, "g"), *given_to(world, "h")]] == ["a", "b"]


# Checks ------------------------------------------------------------------------------------------


async def test_a_task_that_lies_with_its_agent_is_not_asked_again() -> None:
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST)])
    for _ in range(3):
        await world.sender.send([Recheck(ONE, LEAST)])
    assert world.sender.asked_again == 0


async def test_a_pushed_task_that_was_lost_with_redis_is_asked_again_at_the_second_look() -> None:
    """F12."""
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST), Ask(TWO, LEAST)])
    world.bus.lose(pushed_key("g"))
    await world.sender.send([Recheck(ONE, LEAST), Recheck(TWO, LEAST)])
    assert given_to(world, "g") == []
    await world.sender.send([Recheck(ONE, LEAST), Recheck(TWO, LEAST)])
    assert given_to(world, "g") == [("one", "a", (3 << 16 | 1) << 8)]
    assert len(given_to(world, "h")) == 1


async def test_a_task_that_waits_here_is_not_looked_for() -> None:
    world = World()
    await world.watch.look()
    await world.sender.send([Ask(ONE, LEAST)])
    for _ in range(3):
        await world.sender.send([Recheck(ONE, LEAST)])
    assert world.sender.asked_again == 0


async def test_nothing_is_missed_before_it_is_known_who_is_there() -> None:
    """A partition was just taken: its pushed tasks lie with hosts that we have not seen yet."""
    world = World()
    for _ in range(3):
        await world.sender.send([Recheck(ONE, LEAST)])
    await world.watch.look()
    await world.sender.send([Recheck(ONE, LEAST)])
    assert world.sender.asked_again == 0
    await world.sender.send([Recheck(ONE, LEAST)])
    assert world.sender.asked_again == 1


async def test_what_a_host_has_handed_back_is_left_to_those_who_pull() -> None:
    """Its agent takes nothing any more: the agent has room, as far as we know."""
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST)])
    world.bus.lose(pushed_key("g"))
    await world.bus.append({ROLE: [encode_assignment(ONE)]})
    await world.sender.send([Recheck(ONE, LEAST)])
    await world.sender.send([Recheck(ONE, LEAST)])
    assert (world.sender.asked_again, world.directory.agents["a"].own) == (0, 0)


async def test_what_another_process_has_pushed_is_found_and_counted() -> None:
    """R12: after a partition has moved, its tasks still lie with their agents."""
    world = await two_hosts()
    await world.bus.append({pushed_key("h"): [encode_assignment(replace(ONE, agent="b"))]})
    for _ in range(2):
        await world.sender.send([Recheck(ONE, LEAST)])
    assert (world.sender.asked_again, world.directory.agents["b"].own) == (0, 1)
    await world.pass_(LOST_S, "g")
    assert [name for name, _, _ in given_to(world, "g")] == ["one"]


async def test_what_lies_with_a_host_that_was_lost_before_us_goes_to_others_at_once() -> None:
    world = await two_hosts()
    await world.pass_(LOST_S, "g")
    await world.bus.append({pushed_key("h"): [encode_assignment(replace(ONE, agent="b"))]})
    await world.sender.send([Recheck(ONE, LEAST)])
    assert [name for name, _, _ in given_to(world, "g")] == ["one"]


async def test_every_repeat_of_a_pulled_task_has_a_higher_delivery_too() -> None:
    """F34: also under the next owner of the partition, whose epoch is higher."""
    world = await two_hosts()
    deliveries = []
    for epoch in (3, 3, 4):
        world.epoch = epoch
        for _ in range(2):
            await world.sender.send([Recheck(ONE)])
        [raw] = world.bus.messages(ROLE)
        deliveries.append(decode_assignment(raw).delivery)
        world.bus.lose(ROLE)
    assert deliveries == sorted(set(deliveries))
    assert deliveries[:2] == [(3 << 16 | 1) << 8, (3 << 16 | 2) << 8]


# Bounds ------------------------------------------------------------------------------------------


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """R33, I16: beyond the bounds the checks of dispatch find what is left."""
    monkeypatch.setattr(module, "GIVEN_MAX", 3)
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    world = World()
    world.host("g", {"id": "a", "capacity": 5})
    await world.seen("g")
    tasks = [task(f"t{n}") for n in range(10)]
    await world.sender.send([Ask(one, LEAST) for one in tasks])
    pushes = world.sender.pushes
    assert pushes is not None
    assert len(given_to(world, "g")) == 10, "who is forgotten leaves room"
    assert world.directory.agents["a"].own == 3
    world.epoch = 3
    world.bus.lose(pushed_key("g"))
    world.leave("g")
    await world.pass_(1)
    await world.sender.send([Ask(task(f"u{n}"), LEAST) for n in range(5)])
    assert pushes.waiting == 2
    for _ in range(2):
        await world.sender.send([Recheck(task(f"u{n}"), LEAST) for n in range(5)])
    world.host("g", {"id": "a", "capacity": 5})
    await world.pass_(1)
    assert {name for name, _, _ in given_to(world, "g")} <= {f"u{n}" for n in range(5)}


async def test_a_task_that_dispatch_never_names_again_makes_room() -> None:
    world = await two_hosts()
    await world.sender.send([Ask(ONE, LEAST), Ask(TWO, LEAST)])
    await world.pass_(GIVEN_S, "g", "h")
    await world.sender.send([Recheck(TWO, LEAST)])
    await world.pass_(1, "g", "h")
    assert [world.directory.agents[name].own for name in "ab"] == [0, 1]


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "end", "check", "die", "live"]), st.integers(0, 5)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
async def test_no_agent_has_more_than_it_can_and_nothing_is_forgotten(
    steps: list[tuple[str, int]],
) -> None:
    """R12, R30, I15: whatever ends, dies and comes back; in the end every task is with somebody."""
    world, open_, asked = World(), {}, 0
    alive = {"g", "h"}
    world.host("g", {"id": "a", "capacity": 2})
    world.host("h", {"id": "b", "capacity": 3})
    await world.seen("g", "h")
    for step, n in steps:
        if step == "ask":
            asked += 1
            one = open_[f"t{asked}"] = task(f"t{asked}")
            await world.sender.send([Ask(one, LEAST)])
        elif step == "end" and open_:
            await world.sender.send([Settled(open_.pop(sorted(open_)[n % len(open_)]))])
        elif step == "check":
            await world.sender.send([Recheck(one, LEAST) for one in open_.values()])
        elif step in ("die", "live"):
            alive = alive ^ {"gh"[n % 2]} if step == "die" else {"g", "h"}
            await world.pass_(LOST_S + 1, *sorted(alive))
        for one in world.directory.agents.values():
            assert 0 <= one.own <= one.capacity
    await world.pass_(LOST_S + 1, "g", "h")
    pushes = world.sender.pushes
    assert pushes is not None
    newest: dict[str, tuple[int, str]] = {}
    for host in ("g", "h"):
        for name, _, delivery in given_to(world, host):
            newest[name] = max(newest.get(name, (-1, "")), (delivery, host))
    for name, one in open_.items():
        assert pushes.waits(one.message_id) or pushes.host_of(one.message_id) == newest[name][1]
    assert sum(one.own for one in world.directory.agents.values()) == min(5, len(open_))
    assert pushes.waiting == len(open_) - min(5, len(open_))
