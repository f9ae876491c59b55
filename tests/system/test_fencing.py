"""One writer at a time, with real processes: zombies write nothing, each command counts once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from redis.asyncio import Redis

from processors import commands
from processors.client import Client
from processors.settings import Addresses
from streams.chain import verify
from streams.codec import encode_command
from streams.message import Command
from streams.partition import commands_key, partition_of
from tests.system import checks
from tests.system.child import MOMENTS
from tests.system.engine import Process, process, until

LEASE_S = 0.6
PARTITIONS = 16
WRITERS = 3
BLOWS = 6
NOTHING = (None, 0, 0)
BATCH = 80  # some five for each partition
PAUSE_S = 0.05
OUTSTANDING_MAX = 800


class Publisher:
    """Keeps commands coming, some of them twice, each for an aggregate of its own."""

    def __init__(self, client: Client, twice: float = 0.0) -> None:
        self.client = client
        self.twice = twice
        self.published: list[Command] = []
        self.repeated = 0
        self._random = random.Random(7)

    async def run(self) -> None:
        """Publish until cancelled, as fast as the workers follow."""
        while True:
            if len(self.published) - await self.effects() < OUTSTANDING_MAX:
                await self.publish(BATCH)
            await asyncio.sleep(PAUSE_S)

    async def effects(self) -> int:
        """How many events there are; each command has one."""
        query = "SELECT coalesce(sum(position), 0) FROM cursors WHERE consumer = 'commands'"
        return int(await self.client.pool.fetchval(query))

    async def publish(self, count: int) -> None:
        """Publish so many more, spread over the partitions."""
        batch: dict[str, list[bytes]] = {}
        fresh = [
            commands.register_agent(commands.new_id(), name="a", roles=["r"]) for _ in range(count)
        ]
        again = [c for c in self.published[-count:] if self._random.random() < self.twice]
        for command in [*fresh, *again]:
            key = commands_key(partition_of(command.root, PARTITIONS))
            batch.setdefault(key, []).append(encode_command(command))
        await self.client.bus.append(batch)
        self.published += fresh
        self.repeated += len(again)

    async def all_done(self) -> None:
        """Wait until the log has an effect of each, and the workers have read all repeats."""

        async def covered() -> bool:
            for partition, offset in await self.client.pool.fetch(
                "SELECT partition, stream_offset FROM cursors WHERE consumer = 'commands'"
            ):
                if await self.client.bus.last_id(commands_key(partition)) != offset:
                    return False
            return await self.effects() >= len(self.published)

        await until(covered, "the effects of all commands")

    async def check(self, redis: Redis) -> None:
        """Every command has exactly one effect, and the history is whole in every way."""
        subjects = checks.by_subject(await checks.history(self.client.pool))
        assert subjects.keys() == {command.subject for command in self.published}
        assert {len(events) for events in subjects.values()} == {1}
        for command in self.published:
            assert subjects[command.subject][0]["causationid"] == command.id
        handled = [
            name
            for those in (await checks.commits(self.client.pool)).values()
            for commit in those
            for name, *_ in commit["commands"]
        ]
        assert sorted(handled) == sorted(command.id for command in self.published)
        for partition in range(PARTITIONS):
            assert (await verify(self.client.log, partition)).ok
        await checks.mirror(self.client.pool, redis)


@asynccontextmanager
async def publishing(client: Client, twice: float = 0.0) -> AsyncIterator[Publisher]:
    """A publisher at work while the context lasts."""
    publisher = Publisher(client, twice)
    work = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        work.cancel()
        await asyncio.wait([work])


async def owners(client: Client) -> dict[int, tuple[str | None, int, int]]:
    """Owner, epoch and head of every partition."""
    rows = await client.pool.fetch(
        "SELECT partition, owner, epoch, position FROM cursors WHERE consumer = 'commands'"
    )
    return {row[0]: tuple(row)[1:] for row in rows}


async def shared(client: Client, names: set[str]) -> None:
    """Wait until each of these workers owns something, and nobody else does."""

    async def found() -> bool:
        return {owner for owner, _, _ in (await owners(client)).values()} == names

    await until(found, "a share of each")


async def owned_by(client: Client, name: str) -> None:
    """Wait until one worker owns everything."""

    async def all_of_it() -> bool:
        found = await owners(client)
        return len(found) == PARTITIONS and {owner for owner, _, _ in found.values()} == {name}

    await until(all_of_it, f"{name} owning everything")


async def zombie(client: Client, moment: str | None, old: Process, new_name: str) -> None:
    """Freeze the owner, let the other take over and go on, wake the zombie: what does it do?"""
    if moment is None:
        old.stop()
    else:
        old.arm(moment)

    await until(lambda: frozen(old), f"the stop {moment}")
    await owned_by(client, new_name)
    taken = await owners(client)

    async def went_on() -> bool:
        now = await owners(client)
        return all(now[p][2] > taken[p][2] for p in taken)

    await until(went_on, "progress of the new owner")
    old.resume()
    count = "SELECT count(*) FROM commits"
    before = await client.pool.fetchval(count)

    async def more() -> bool:
        return bool(await client.pool.fetchval(count) > before + PARTITIONS)

    await until(more, "commits beside the zombie")
    for partition, epoch in await client.pool.fetch(
        "SELECT c.partition, c.epoch FROM commits AS c"
        " JOIN unnest($1::int[], $2::bigint[]) AS t(partition, position) USING (partition)"
        " WHERE c.last_position > t.position",
        list(taken),
        [head for _, _, head in taken.values()],
    ):
        assert epoch >= taken[partition][1], "the zombie wrote"


async def test_a_zombie_writes_nothing_after_it_wakes(database: str, redis_url: str) -> None:
    """F24, I4, I5, I11: stopped before and after its commit, and anywhere; the fence is seen.

    Two workers share the partitions and take turns: one is stopped with work in hand, the other
    takes over and goes on, then the stopped one wakes and goes on with what it had in hand.
    """
    addresses = Addresses(database, redis_url)
    async with Client(addresses) as client:
        with ExitStack() as stack:
            old = stack.enter_context(process(addresses, lease_s=LEASE_S))
            new = stack.enter_context(process(addresses, lease_s=LEASE_S))
            names = {old: old.ready(), new: new.ready()}
            await shared(client, set(names.values()))
            async with publishing(client) as publisher:
                for moment in (*MOMENTS, *MOMENTS, None, None, None):
                    await zombie(client, moment, old, names[new])
                    old, new = new, old
            await publisher.all_done()
            await publisher.check(client.bus.redis)
            counts = [worker.finish() for worker in (old, new)]
    assert sum(count["fenced"] for count in counts) >= 2, "no fence was ever hit: the run is void"
    assert sum(count["already_there"] for count in counts) >= 1, "no zombie mirrored"


async def test_a_zombie_is_refused_also_before_its_successor_has_written(
    database: str, redis_url: str
) -> None:
    """F24, I5: the head is where the zombie left it, and only the epoch tells them apart."""
    addresses = Addresses(database, redis_url)
    async with Client(addresses) as client:
        with ExitStack() as stack:
            old = stack.enter_context(process(addresses, lease_s=LEASE_S))
            old_name = old.ready()
            await owned_by(client, old_name)
            publisher = Publisher(client)
            await publisher.publish(BATCH)
            await publisher.all_done()
            old.arm(MOMENTS[0])
            await publisher.publish(BATCH)
            await until(lambda: frozen(old), "the stop of the old one")
            new = stack.enter_context(process(addresses, lease_s=LEASE_S, armed=MOMENTS[0]))
            await until(lambda: frozen(new), "the stop of the new one")
            before = await owners(client)
            assert old_name not in {owner for owner, _, _ in before.values()}
            old.resume()

            async def refused() -> bool:
                return old.diary().count("lease_lost") >= PARTITIONS

            await until(refused, "what the zombie makes of it")
            after = await owners(client)
            assert {p: at for p, (_, _, at) in after.items()} == {
                p: at for p, (_, _, at) in before.items()
            }
            new.resume()
            new.ready()
            await publisher.all_done()
            await publisher.check(client.bus.redis)
            counts = old.finish()
            new.finish()
    assert counts["fenced"] > 0, "void: it never tried"


async def frozen(worker: Process) -> bool:
    return worker.frozen


async def test_each_command_counts_once_while_leases_fly(database: str, redis_url: str) -> None:
    """F11, F24, F25, F30, I1-I6, I11: three writers, whoever owns most is stopped or killed.

    Every third command is published twice. Positions stay 1..n, the chain holds, nothing is lost
    and nothing counts twice; and the work goes on after each blow.
    """
    addresses, chance = Addresses(database, redis_url), random.Random(11)
    async with Client(addresses) as client:
        with ExitStack() as stack:
            named: dict[str, Process] = {}

            async def another() -> None:
                worker = stack.enter_context(process(addresses, lease_s=LEASE_S))
                named[await asyncio.to_thread(worker.ready)] = worker

            await asyncio.gather(*(another() for _ in range(WRITERS)))
            async with publishing(client, twice=0.3) as publisher:
                for blow in range(BLOWS):
                    await progress(publisher)
                    held = Counter(owner for owner, _, _ in (await owners(client)).values())
                    victim = max(named, key=lambda name: held[name])
                    if blow % 3 == 2:
                        named.pop(victim).kill()
                        await another()
                    else:
                        named[victim].stop()
                        await asyncio.sleep(LEASE_S * chance.uniform(0.5, 2.5))
                        named[victim].resume()
                await progress(publisher)
            await publisher.all_done()
            await publisher.check(client.bus.redis)
            epochs = [epoch for _, epoch, _ in (await owners(client)).values()]
            counts = [worker.finish() for worker in named.values()]
    assert sum(epochs) >= 2 * PARTITIONS, "the leases stayed where they were"
    assert publisher.repeated > 0
    assert sum(count["repeats"] for count in counts) > 0, "no repeat was ever seen"


async def progress(publisher: Publisher) -> None:
    """Wait until every partition has gone on."""
    before = await owners(publisher.client)

    async def went_on() -> bool:
        now = await owners(publisher.client)
        return len(now) == PARTITIONS and all(now[p][2] > before.get(p, NOTHING)[2] for p in now)

    await until(went_on, "progress in every partition")
