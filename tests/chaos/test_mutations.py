"""The checker sees what the guards guard: with one guard taken out, it turns red.

Guards mask each other, so each scenario is the one in which this guard stands alone: where a second
one would hide the fault it is out in both runs, and the run with only that one out must be green.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import pytest

from processors import commands
from streams.codec import encode_command
from streams.message import Command
from streams.partition import commands_key
from tests.chaos import checker
from tests.chaos.campaign import Epochs
from tests.chaos.checker_executions import violations
from tests.chaos.fleet import Child, Fleet, fleet
from tests.chaos.ground import Ground, Servers, ground
from tests.chaos.test_crash_points import wait
from tests.system.engine import an_id

PARTITION = 3
LEASE_S = 0.6
UNIQUE = "ALTER TABLE events DROP CONSTRAINT events_pkey"
NUMBERED = "ALTER TABLE commits DROP CONSTRAINT commits_pkey"
HEAD = "SELECT position FROM cursors WHERE consumer = 'commands' AND partition = $1"
OWNER = "SELECT owner FROM cursors WHERE consumer = 'commands' AND partition = $1"


def an_intent() -> Command:
    """A command with one event, in the partition that all is about."""
    return commands.register_agent(an_id("agent", PARTITION), name="a", roles=["r"])


async def publish(on: Ground, said: Sequence[Command]) -> None:
    """Into the partition's stream, past every proxy."""
    for command in said:
        await on.redis.xadd(commands_key(PARTITION), {"message": encode_command(command)})


async def reaches(on: Ground, head: int) -> None:
    """Wait until the partition has so many events."""

    async def there() -> bool:
        async with on.database() as database:
            return bool(await database.fetchval(HEAD, PARTITION) >= head)

    await wait(there, f"position {head}")


async def owned_by(on: Ground, child: Child) -> None:
    """Wait until the partition is this worker's, or no longer this one's where it is frozen."""

    async def theirs() -> bool:
        async with on.database() as database:
            owner = await database.fetchval(OWNER, PARTITION)
        return (owner == child.counts().get("name")) != child.frozen

    await wait(theirs, "the owner")


async def facts(on: Ground, epochs: Epochs) -> list[str]:
    """What the checker says, once everybody has read everything that was given."""

    async def quiet() -> bool:
        newest = await on.redis.xrevrange(commands_key(PARTITION), count=1)
        async with on.database() as database:
            offset = await database.fetchval(
                "SELECT stream_offset FROM cursors WHERE consumer = 'commands' AND partition = $1",
                PARTITION,
            )
        return bool(newest[0][0].decode() == offset)

    await wait(quiet, "the end of the stream")
    await asyncio.sleep(LEASE_S)  # what a mutant writes too late is to be seen as well
    async with on.database() as database:
        return violations(await checker.read(database, on.redis, epochs=epochs.seen))


async def a_zombie_before_its_successor(on: Ground, those: Fleet, out: Sequence[str]) -> list[str]:
    """The lease is lost, nobody has written since: only the epoch tells the zombie from the owner.

    The successor is stopped before its own first commit, so that the head stays where it was.
    """
    epochs = Epochs()
    old = await those.worker(["commands"], out)
    await publish(on, [an_intent()])
    await reaches(on, 1)
    old.arm("before the commit", "stop")
    await publish(on, [an_intent()])
    await wait(lambda: old.frozen, "the zombie")
    new = await those.worker(["commands"], out, armed=("before the commit", "stop"))
    await wait(lambda: new.frozen, "the successor at its first commit")
    async with on.database() as database:
        await epochs.look(database)
    old.signal(signal.SIGCONT)
    await wait(
        lambda: old.counts().get("fenced") or old.counts().get("commits", 0) > 1, "its commit"
    )
    new.signal(signal.SIGCONT)
    return await facts(on, epochs)


async def a_zombie_after_its_successor(on: Ground, those: Fleet, out: Sequence[str]) -> list[str]:
    """The successor has written: the zombie's head is no longer the log's.

    The tables' keys would refuse the doubled positions, so they are dropped.
    """
    epochs = Epochs()
    async with on.database() as database:
        await database.execute(UNIQUE)
        await database.execute(NUMBERED)
    old = await those.worker(["commands"], out)
    await publish(on, [an_intent()])
    await reaches(on, 1)
    old.arm("before the commit", "stop")
    await publish(on, [an_intent()])
    await wait(lambda: old.frozen, "the zombie")
    await those.worker(["commands"], out)
    await reaches(on, 2)
    old.signal(signal.SIGCONT)
    await wait(
        lambda: old.counts().get("fenced") or old.counts().get("commits", 0) > 1, "its commit"
    )
    return await facts(on, epochs)


async def a_command_comes_twice(on: Ground, those: Fleet, out: Sequence[str]) -> list[str]:
    """Once more after it was decided, with the same id."""
    await those.worker(["commands"], out)
    said = an_intent()
    await publish(on, [said])
    await reaches(on, 1)
    await publish(on, [said, an_intent()])
    await reaches(on, 2)
    return await facts(on, Epochs())


async def a_crash_before_the_mirror(on: Ground, those: Fleet, out: Sequence[str]) -> list[str]:
    """Committed, not mirrored, and then there is only the successor, and no further command.

    (With a further one the mirror would begin afresh behind the hole: readers find the rest in the
    table, but the mirror is not the end of the log that it says it is.)
    """
    old = await those.worker(["commands"], out)
    await publish(on, [an_intent()])
    await reaches(on, 1)
    old.arm("after the commit", "kill")
    await publish(on, [an_intent()])
    await wait(lambda: not old.alive, "the crash")
    new = await those.worker(["commands"], out)
    await owned_by(on, new)
    await reaches(on, 2)
    return await facts(on, Epochs())


SCENARIOS = [
    ("fence", a_zombie_before_its_successor, (), "I5"),
    ("compare_and_set", a_zombie_after_its_successor, ("fence",), "I1"),
    ("dedupe", a_command_comes_twice, (), "I4"),
    ("re_mirror", a_crash_before_the_mirror, (), "I11"),
]


@pytest.mark.parametrize(
    ("guard", "scenario", "out", "invariant"), SCENARIOS, ids=lambda each: str(each)
)
async def test_without_its_guard_the_checker_turns_red(
    guard: str, scenario: object, out: Sequence[str], invariant: str, harmed: Servers
) -> None:
    """F24 (fence, compare-and-set), F30 (dedupe), F2 (re-mirror): green with it, red without."""
    assert callable(scenario)
    async with ground(harmed) as on, fleet(on, lease_s=LEASE_S) as those:
        assert await scenario(on, those, out) == []
    async with ground(harmed) as on, fleet(on, lease_s=LEASE_S) as those:
        wrong = await scenario(on, those, (*out, guard))
    assert any(one.startswith(invariant) for one in wrong), wrong
