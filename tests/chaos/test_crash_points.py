"""Every step boundary by name: killed there, stopped there past the lease, and failing there.

F1-F8 and F24: one run, with load all the time, walks through all moments; in the end everything
has come out as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import asyncpg

from tests.chaos.campaign import Report, Scene, check, scene
from tests.chaos.fleet import Child
from tests.chaos.ground import Servers
from tests.chaos.moments import AGENT_MOMENTS, WORKER_MOMENTS
from tests.chaos.nemesis import Nemesis

SEED = 21
LEASE_S = 0.6
ACTIONS = ("kill", "stop", "raise")
FIRE_S = 15.0
ON_TAKE = ("before the lease is taken", "after the lease was taken", "while the state is loaded")
"""Moments that come only to somebody who takes something over."""

NEVER_RAISED = ("before the lease is taken", "after the lease was taken")
"""A bug in the very taking of leases ends the beat; the process is replaced like a killed one."""


async def test_every_step_boundary_is_crossed_by_a_crash_a_stop_and_a_bug(harmed: Servers) -> None:
    """F1-F8, F24, I4, I5, I10-I13, I15: each moment is seen to be hit in each way."""
    report = Report(SEED)
    async with scene(harmed, SEED, workers=2, lease_s=LEASE_S) as at:
        await at.load.prepare()
        quiet = asyncio.Event()
        loading = asyncio.create_task(at.load.run(quiet, pause_s=0.1))
        walk = Walk(at)
        for moment in WORKER_MOMENTS:
            for action in ACTIONS:
                if not (action == "raise" and moment in NEVER_RAISED):
                    await walk.hit(moment, action)
        for moment in AGENT_MOMENTS:
            await walk.hit_host(moment, "kill")
            await walk.hit_host(moment, "stop")
        quiet.set()
        await loading
        await check(at, report)
    print(report.line())
    assert not report.wrong, "\n".join(report.wrong)
    missing = [
        f"{action} {moment}"
        for moment in WORKER_MOMENTS
        for action in ACTIONS
        if not (action == "raise" and moment in NEVER_RAISED)
    ]
    missing += [f"{action} {moment}" for moment in AGENT_MOMENTS for action in ("kill", "stop")]
    assert not report.seen.missing(
        *missing,
        "zombie writes refused",
        "re-mirrored",
        "equal or smaller",
        "duplicates",
        "leases lost",
        "projections waited",
        "tasks taken over",
    ), "void"


class Walk:
    """Hits one worker after the other, with a second one there to take over."""

    def __init__(self, at: Scene) -> None:
        self.at = at
        self.nemesis = Nemesis(at.ground, at.fleet, SEED)

    async def hit(self, moment: str, action: str) -> None:
        """One worker is hit at one moment; afterwards two are well again."""
        if moment in ON_TAKE:
            others = self.at.fleet.workers
            victim = await self.at.fleet.worker(armed=(moment, action))
            for other in others:
                await other.kill()
        else:
            victim = await self.owner()
            victim.arm(moment, action)
        before = victim.counts()
        await self.fired(victim, moment, action)
        match action:
            case "kill":
                await wait(lambda: not victim.alive, f"the end {moment}")
            case "stop" if moment not in ON_TAKE:
                await self.taken_over(victim)
                victim.signal(signal.SIGCONT)
                await self.refused(victim, before.get("leases_lost", 0))
        if action == "stop" and moment in ON_TAKE:
            await self.at.fleet.worker()
            await self.taken_over(victim)
            victim.signal(signal.SIGCONT)
        while len(self.at.fleet.workers) < 2:
            await self.at.fleet.worker()
        for worker in self.at.fleet.workers:
            await worker.ready()

    async def hit_host(self, moment: str, action: str) -> None:
        """The same with a host of agents."""
        victim = self.at.fleet.hosts[0]
        victim.arm(moment, action)
        await self.fired(victim, moment, action)
        if action == "kill":
            await wait(lambda: not victim.alive, f"the end {moment}")
            await self.at.fleet.host()
        else:
            await asyncio.sleep(3 * self.at.fleet.task_lease_s)  # until others have its tasks
            victim.signal(signal.SIGCONT)

    async def owner(self) -> Child:
        """Whoever owns most of the partitions, of those that run."""
        query = (
            "SELECT owner FROM cursors WHERE owner = ANY($1) GROUP BY owner"
            " HAVING count(DISTINCT consumer) > 2 ORDER BY count(*) DESC"
        )

        async def found() -> Child | None:
            named = {c.counts().get("name"): c for c in self.at.fleet.workers if not c.frozen}
            async with self.at.ground.database() as database:
                name = await database.fetchval(query, [n for n in named if n])
            return named.get(name)

        return await wait(found, "somebody who owns partitions")

    async def fired(self, victim: Child, moment: str, action: str) -> None:
        """Wait until it was hit."""
        hit = (moment, action)
        await wait(lambda: hit in victim.hits(), f"{action} {moment}", FIRE_S)

    async def taken_over(self, victim: Child) -> None:
        """Wait until all that it owned is somebody else's."""
        name = victim.counts().get("name")  # unknown where it was stopped at its start

        async def gone() -> bool:
            async with self.at.ground.database() as database:
                owned = "SELECT count(*) FROM cursors WHERE owner = $1 AND consumer !~ '@'"
                return not await database.fetchval(owned, name)

        if name:
            await wait(gone, f"the take-over from {victim.name}")

    async def refused(self, victim: Child, before: int) -> None:
        """Wait until the zombie has heard that it is one."""
        await wait(
            lambda: victim.counts().get("leases_lost", 0) > before, f"{victim.name} being refused"
        )


async def wait(
    done: Callable[[], object] | Callable[[], Awaitable[object]], what: str, patience_s: float = 30
) -> object:
    """What it says once that is true."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while True:
        answer = done()
        if asyncio.iscoroutine(answer):
            try:
                answer = await answer
            except (OSError, asyncpg.PostgresError):
                answer = None
        if answer:
            return answer
        assert loop.time() < until, f"{what} has not come"
        await asyncio.sleep(0.05)
