"""What goes wrong in a chaos run: one seeded action after the other, each of them undone.

An action is bounded in time and touches only what this run has started. It leaves the engine
working again, though not yet recovered: the next one comes while it still recovers.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from time import monotonic
from typing import Any

import asyncpg
from redis.exceptions import RedisError

from tests.chaos.fleet import Child, Fleet
from tests.chaos.ground import Ground

SPELL_S = 1.5  # how long something stays frozen, slow or full
FIRE_S = 3.0  # how long an armed moment is waited for
ZOMBIE_S = 10.0  # how long a take-over, and a zombie's refusal, are waited for
WRITES = b"specversion"  # in every commit's arguments, and in every message to Redis
STALE_NAMES = 1_000


class Nemesis:
    """Does harm to one ground and one fleet; says in `seen` what came of it."""

    def __init__(self, on: Ground, fleet: Fleet, seed: int) -> None:
        self.ground = on
        self.fleet = fleet
        self.seen: Counter[str] = Counter()
        self.journal: list[str] = []
        self._chance = random.Random(f"nemesis/{seed}")
        self._begun = monotonic()

    def plan(self, share: int = 0, of: int = 1) -> list[str]:
        """All actions in this seed's order, or one share of them; the shares are disjoint."""
        names = list(ACTIONS)[share::of]
        self._chance.shuffle(names)
        return names

    async def run(self, names: list[str]) -> None:
        """One after the other."""
        for name in names:
            self.journal.append(f"{monotonic() - self._begun:.1f} {name}")
            self.seen[f"action {name}"] += 1
            try:
                await ACTIONS[name](self)
            except (RedisError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self.journal.append(f"{name}: {error!r}")  # the server is away: harm enough
            self.ground.heal()
            await asyncio.sleep(self._chance.uniform(0.0, 0.5))

    def _any(self, children: list[Child]) -> Child:
        return self._chance.choice(children)

    # Processes ----------------------------------------------------------------------------------

    async def kill_worker(self) -> None:
        """F1-F7, F11: SIGKILL, wherever it is; another one comes."""
        await self._any(self.fleet.workers).kill()
        self.seen["crashes"] += 1
        await self.fleet.worker()

    async def kill_all(self) -> None:
        """F11: everything at once, and back in some order."""
        kinds = ["worker"] * len(self.fleet.workers) + ["host"] * len(self.fleet.hosts)
        await asyncio.gather(*(c.kill() for c in [*self.fleet.workers, *self.fleet.hosts]))
        self.seen["crashes"] += len(kinds)
        self._chance.shuffle(kinds)
        for kind in kinds:
            await (self.fleet.worker() if kind == "worker" else self.fleet.host())

    async def zombie(self) -> None:
        """F24: stopped with a commit in hand, past its lease; awake when another has taken over."""
        await self._zombie("before the commit")

    async def zombie_mirror(self) -> None:
        """F2, F3, F24: the same between its commit and the mirror."""
        await self._zombie("after the commit")

    async def zombie_anywhere(self) -> None:
        """F24, F26: the same, wherever it is."""
        await self._zombie(None)

    async def _zombie(self, moment: str | None) -> None:
        owners = await self._waited(self._owners, ZOMBIE_S)
        victim = self._any([c for c in self.fleet.workers if c.counts()["name"] in owners])
        if moment:
            victim.arm(moment, "stop")
            await self._waited(lambda: victim.frozen, FIRE_S)
            victim.arm(None)
        victim.signal(signal.SIGSTOP)
        before = victim.counts()
        name = before["name"]
        taken = await self._waited(lambda: self._owns_nothing(name), ZOMBIE_S)
        self.seen["take-overs"] += bool(taken)
        victim.signal(signal.SIGCONT)
        # Nothing else happens before it has really woken and was refused: else nothing was shown.
        woken = await self._waited(
            lambda: victim.counts().get("leases_lost", 0) > before.get("leases_lost", 0), ZOMBIE_S
        )
        self.seen["zombies refused"] += bool(woken)

    async def _owners(self) -> set[str]:
        async with self.ground.database() as database:
            rows = await database.fetch("SELECT owner FROM cursors WHERE consumer = 'commands'")
        living = {child.counts()["name"] for child in self.fleet.workers}
        return living & {owner for (owner,) in rows}

    async def _owns_nothing(self, name: str) -> bool:
        async with self.ground.database() as database:
            owned = "SELECT count(*) FROM cursors WHERE owner = $1 AND consumer = 'commands'"
            return not await database.fetchval(owned, name)

    async def move(self) -> None:
        """R11: an orderly end, and a new worker: partitions move."""
        leaving = self._any(self.fleet.workers)
        coming = asyncio.create_task(self.fleet.worker())
        await leaving.finish()
        await coming
        self.seen["moves"] += 1

    async def kill_host(self) -> None:
        """F9, F34: an agent dies in the middle of its tasks; the others take them."""
        await self._any(self.fleet.hosts).kill()
        self.seen["crashes"] += 1
        await self.fleet.host()

    async def stop_host(self) -> None:
        """F34, F35: an agent sleeps past its lease, and answers late."""
        victim = self._any(self.fleet.hosts)
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(3 * self.fleet.task_lease_s)
        victim.signal(signal.SIGCONT)
        self.seen["hosts stopped"] += 1

    # Redis --------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """F12: everything in Redis is gone."""
        await self.ground.redis.flushall()

    async def restart_redis(self) -> None:
        """F12: killed, and back with its file."""
        await asyncio.to_thread(self.ground.servers.restart_redis, lose_data=False)

    async def replace_redis(self) -> None:
        """F12, F13: killed, and back without any data."""
        await asyncio.to_thread(self.ground.servers.restart_redis, lose_data=True)

    async def stop_redis(self) -> None:
        """F16: silent for a while."""
        with self.ground.servers.redis_stopped():
            await asyncio.sleep(2 * SPELL_S)

    async def fill_memory(self) -> None:
        """F14: writes are refused, reads are not."""
        await self.ground.redis.config_set("maxmemory", 1_000_000)
        try:
            await asyncio.sleep(SPELL_S)
        finally:
            await self.ground.redis.config_set("maxmemory", 0)

    async def trim(self) -> None:
        """F17: the mirror, the tasks and the commands lose what nobody has read yet."""
        until = monotonic() + SPELL_S
        while monotonic() < until:
            for key in [
                k for p in ("events:*", "tasks:*", "commands*") for k in await self._keys(p)
            ]:
                await self.ground.redis.xtrim(key, maxlen=1, approximate=False)
            await asyncio.sleep(0.05)

    async def delete_streams(self) -> None:
        """F12, F17: some streams are deleted, groups and all."""
        for key in await self._keys("events:*") + await self._keys("tasks:*"):
            if self._chance.random() < 0.7:
                await self.ground.redis.delete(key)

    async def stale_consumers(self) -> None:
        """F18: a thousand names that nobody bears, one of which takes tasks with it."""
        for key in await self._keys("tasks:*"):
            async with self.ground.redis.pipeline(transaction=False) as pipe:
                for n in range(STALE_NAMES):
                    pipe.execute_command("XGROUP", "CREATECONSUMER", key, "agents", f"gone-{n}")
                await pipe.execute(raise_on_error=False)
            for _ in range(10):
                got: Any = await self.ground.redis.xreadgroup(
                    "agents", "gone-0", {key: ">"}, count=5, block=100
                )
                self.seen["tasks taken by nobody"] += sum(len(entries) for _, entries in got)

    async def poison(self) -> None:
        """F32: what is no command and no task, in every kind of stream."""
        raws = [b"\xff\xfe", b"", b"[" * 100_000, b'{"id":7}', b'{"a":NaN}', b"x" * 5_000_000]
        for key in ["commands", "commands:{3}", *await self._keys("tasks:*")]:
            for raw in raws:
                await self.ground.redis.xadd(key, {"message": raw})
            await self.ground.redis.xadd(key, {"something": "else"})

    # Postgres -----------------------------------------------------------------------------------

    async def restart_postgres(self) -> None:
        """F20: a fast shutdown in the middle of everything."""
        await asyncio.to_thread(self.ground.servers.restart_postgres, kill=False)

    async def kill_postgres(self) -> None:
        """F21: every process of it killed; recovery."""
        await asyncio.to_thread(self.ground.servers.restart_postgres, kill=True)

    async def terminate_backends(self) -> None:
        """F20: every session ended by the server, three times."""
        for _ in range(3):
            async with self.ground.database() as database:
                ended = await database.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = 'agentcore'"
                )
            self.seen["sessions ended"] += ended
            await asyncio.sleep(0.2)

    # The way there ------------------------------------------------------------------------------

    async def cut(self) -> None:
        """F20, F29: all connections to both servers, three times."""
        for _ in range(3):
            for proxy in (self.ground.redis_proxy, self.ground.postgres_proxy):
                self.seen["connections cut"] += proxy.cut()
            await asyncio.sleep(0.3)

    async def refuse(self) -> None:
        """F29: nobody comes through to either server for a while."""
        for proxy in (self.ground.redis_proxy, self.ground.postgres_proxy):
            proxy.refusing = True
            self.seen["connections cut"] += proxy.cut()
        await asyncio.sleep(SPELL_S)

    async def lose_replies_of_redis(self) -> None:
        """F19: the request was carried out, its answer is lost: of writes, and of reads."""
        for to in (WRITES, b"XREADGROUP", WRITES, b"XREAD", WRITES):
            await self._lose_reply(self.ground.redis_proxy, to)

    async def lose_replies_of_postgres(self) -> None:
        """F20, F22: the commit came about or not, and nobody was told."""
        for _ in range(5):
            await self._lose_reply(self.ground.postgres_proxy, WRITES)

    async def _lose_reply(self, proxy: Any, to: bytes) -> None:
        before = proxy.dropped
        proxy.drop_reply(to)
        self.seen["replies lost"] += bool(await self._waited(lambda: proxy.dropped > before, 2.0))

    async def freeze(self) -> None:
        """F29: one server is silent, in both directions or in one, for longer than a lease."""
        proxy = self._chance.choice([self.ground.redis_proxy, self.ground.postgres_proxy])
        proxy.freeze(*self._chance.choice([("up",), ("down",), ("up", "down")]))
        await asyncio.sleep(self.fleet.lease_s * 2)

    async def slow(self) -> None:
        """F16, F23: every answer takes longer."""
        self.ground.redis_proxy.delay_s = self.ground.postgres_proxy.delay_s = 0.05
        await asyncio.sleep(2 * SPELL_S)

    async def _keys(self, pattern: str) -> list[str]:
        return [key.decode() async for key in self.ground.redis.scan_iter(pattern)]

    @staticmethod
    async def _waited(done: Callable[[], Any], limit_s: float) -> Any:
        """What it says once that is true, or after so long."""
        until = monotonic() + limit_s
        while True:
            answer = done()
            if asyncio.iscoroutine(answer):
                try:
                    answer = await answer
                except (OSError, asyncpg.PostgresError):
                    answer = None
            if answer or monotonic() > until:
                return answer
            await asyncio.sleep(0.05)


ACTIONS: dict[str, Callable[[Nemesis], Awaitable[None]]] = {
    name: action
    for name, action in vars(Nemesis).items()
    if iscoroutinefunction(action) and name != "run" and not name.startswith("_")
}
"""Every public coroutine but `run`: a new action is one new method."""
