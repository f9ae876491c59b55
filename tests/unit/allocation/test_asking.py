"""R30: why a task waits can be asked for by whoever has not been looking."""

from __future__ import annotations

import asyncio
from typing import cast

from processors.allocation.asking import look, reason
from processors.allocation.need import Need
from streams.bus import Bus
from tests.unit.allocation.world import World

PULL = Need("pull")


async def asked(world: World, *beating: str, role: str = "r") -> str | None:
    """The answer, where these hosts beat all the time."""
    asking = asyncio.create_task(look(cast(Bus, world.bus), world, pause_s=0.01))
    while not asking.done():
        for host in beating:
            world.beat(host)
        await asyncio.sleep(0)
    return reason(await asking, role, PULL)


async def test_nothing_is_wrong_where_an_agent_could_take_it() -> None:
    world = World()
    world.host("h", {"id": "a"})
    assert await asked(world, "h") is None
    assert await asked(world, "h", role="s") == "No live agent serves the role 's'."


async def test_who_does_not_beat_is_silent_and_who_fails_is_named_with_the_reason() -> None:
    world = World()
    world.host("h", {"id": "a"})
    world.host("g", {"id": "b"})
    world.registered("b", circuit="open", reason="8 failures in a row, the last one: no")
    assert await asked(world, "g") == (
        "No agent of the role 'r' can take a task: 1 circuit open, 1 silent."
        " The first says: 8 failures in a row, the last one: no"
    )
