"""R30: one worker says who is lost and who is back, and hosts learn which agents get no work."""

from __future__ import annotations

import orjson

from processors.agents.wire import decode_gate
from processors.allocation.directory import FORGET_S, LOST_S
from processors.allocation.watch import SAY_AGAIN_S
from streams.partition import gate_channel, pushed_key
from tests.unit.allocation.world import World


async def alive() -> World:
    """A host with two agents, one of them registered."""
    world = World()
    world.host("h", {"id": "a"}, {"id": "stranger"})
    world.registered("a")
    await world.seen("h")
    return world


async def test_an_agent_whose_host_is_silent_is_lost_and_returns_with_it() -> None:
    world = await alive()
    await world.pass_(LOST_S - 1)
    assert world.told() == []
    await world.pass_(1)
    assert world.told() == [("MarkAgentLost", "a")]
    assert world.commands[0].data == {
        "reason": f"Its host h gave no sign of life for {LOST_S:g} s."
    }
    world.registered("a", lost=True)
    await world.pass_(3 * SAY_AGAIN_S)
    assert len(world.told()) == 1
    await world.pass_(2, "h")
    assert world.told()[1:] == [("MarkAgentReturned", "a")]


async def test_of_a_quick_restart_nothing_is_said() -> None:
    world = await alive()
    world.leave("h")
    await world.pass_(LOST_S - 2)
    world.host("h", {"id": "a"})
    await world.pass_(SAY_AGAIN_S, "h")
    assert world.told() == []


async def test_what_does_not_show_in_the_read_model_is_said_again() -> None:
    """F12: the command was lost with Redis."""
    world = await alive()
    await world.pass_(LOST_S)
    await world.pass_(SAY_AGAIN_S)
    assert world.told() == [("MarkAgentLost", "a")] * 2


async def test_who_was_never_registered_is_seldom_asked_after() -> None:
    world = await alive()
    await world.pass_(LOST_S + SAY_AGAIN_S - 1)
    assert world.asked_for == [{"a", "stranger"}]
    assert ("MarkAgentLost", "stranger") not in world.told()


async def test_only_the_owner_of_its_partition_speaks_of_an_agent() -> None:
    world = await alive()
    world.epoch = None
    await world.pass_(2 * LOST_S)
    world.registered("a", lost=True, circuit="open")
    await world.pass_(2, "h")
    assert (world.told(), world.bus.published) == ([], [])


async def test_an_agent_that_moved_to_another_host_is_not_lost() -> None:
    world = await alive()
    world.host("g", {"id": "a"})
    await world.pass_(2 * LOST_S, "g")
    assert world.told() == []


async def test_hosts_are_told_of_gates_until_they_agree() -> None:
    """R30: none while open or drained, one at a time on trial, then all that it can."""
    world = await alive()
    for state, gate in (
        ({"circuit": "open"}, (False, 0)),
        ({"circuit": "half_open"}, (True, 1)),
        ({"circuit": "closed", "status": "draining"}, (False, 0)),
    ):
        world.registered("a", **state)
        world.bus.published.clear()
        await world.pass_(2, "h")
        assert [_gate(raw) for raw in published(world)] == [("a", gate[0], gate[1])] * 2
        world.beat("h", gates={"a": gate[1]})
        world.bus.published.clear()
        await world.watch.look()
        assert world.bus.published == []
    world.registered("a", status="active")
    await world.watch.look()
    assert [_gate(raw) for raw in published(world)] == [("a", True, None)]


async def test_what_a_host_that_is_gone_for_good_has_left_is_cleared_away() -> None:
    """I16: nobody reads its stream any more."""
    world = await alive()
    await world.bus.append({pushed_key("h"): [b"a task"]})
    world.leave("h")
    await world.pass_(FORGET_S - 1)
    assert world.bus.messages(pushed_key("h")) == [b"a task"]
    await world.pass_(2)
    assert world.bus.messages(pushed_key("h")) == []


def published(world: World) -> list[bytes]:
    """What the host was told."""
    assert {channel for channel, _ in world.bus.published} <= {gate_channel("h")}
    return [raw for _, raw in world.bus.published]


def _gate(raw: bytes) -> tuple[str, bool, int | None]:
    return (*decode_gate(raw)[:2], orjson.loads(raw).get("limit"))
