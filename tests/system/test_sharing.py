"""Several workers share the work: who comes gets a share, who goes hands its own over. R33, R14."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from statistics import median
from time import monotonic

import pytest
from redis.asyncio import Redis

from processors import commands
from processors.client import Client
from processors.settings import Addresses
from processors.standings import CONSUMERS, Standing, standings
from streams.leases import Leases
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from tests.system import checks
from tests.system.engine import Process, agents, completed, definition, process, until

ROLES = ("commands", "managers", "projections")
RUNS, TASKS, TASK_S = 32, 60, 0.1
ENDED = """
SELECT count(*) = cardinality($1::text[]) FROM events
WHERE type = 'ExecutionCompleted' AND split_part(subject, '/', 2) = ANY($1)
"""
PARTITIONS = 16


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


@pytest.fixture
async def log(database):
    made = PostgresLog(database)
    await made.open()
    yield made
    await made.close()


async def owners(log: PostgresLog) -> dict[tuple[str, int], Standing]:
    return {(one.consumer, one.partition): one for one in (await standings(log)).partitions}


async def shared_by(log: PostgresLog, names: set[str]) -> dict[tuple[str, int], Standing]:
    """Wait until exactly these own everything, each partition whom it belongs to."""
    wanted = {(consumer, p): _rightful(p, names) for consumer in CONSUMERS for p in ALL}

    async def all_settled():
        now = await owners(log)
        return {at: one.owner for at, one in now.items()} == wanted and now

    return await until(all_settled, f"the shares of {sorted(names)}")


ALL = range(PARTITIONS)


def _rightful(partition: int, names: set[str]) -> str:
    from streams.members import weight

    return max(names, key=lambda name: weight(name, partition))


@asynccontextmanager
async def load(addresses: Addresses):
    """Chains of short tasks over all partitions; yields the client and the executions' ids."""
    async with Client(addresses) as client, agents(addresses, ["worker"], factor=TASK_S):
        created = commands.create_workflow(definition=definition(TASKS))
        await client.call(created)
        said = [commands.start_execution(created.root) for _ in range(RUNS)]
        await asyncio.gather(*(client.call(one) for one in said))
        yield client, [one.root for one in said]


async def all_is_well(client: Client, addresses: Addresses, runs: list[str]) -> None:
    """Every execution completes with exactly its events; I1–I7, I11, I17."""
    await completed(client.pool, runs)
    await checks.commits(client.pool)
    subjects = checks.by_subject(await checks.history(client.pool))
    for name in runs:
        checks.execution(subjects[f"execution/{name}"], definition(TASKS))
    redis = Redis.from_url(addresses.redis_url)

    async def mirrored():
        try:
            return await checks.mirror(client.pool, redis)
        except (AssertionError, IndexError):
            return 0

    await until(mirrored, "a whole mirror")
    await redis.aclose()


def ready(*workers: Process) -> list[str]:
    return [worker.ready() for worker in workers]


async def test_who_is_told_to_stop_hands_its_share_over_in_the_middle_of_the_work(addresses, log):
    """Nothing is fenced, nothing lost: each partition moves once, and goes on where it stood."""
    with ExitStack() as stack:
        workers = [stack.enter_context(process(addresses, roles=ROLES)) for _ in range(3)]
        names = await asyncio.to_thread(ready, *workers)
        before = await shared_by(log, set(names))
        its = {at for at, one in before.items() if one.owner == names[0]}
        assert its, "void: it owned nothing"
        async with load(addresses) as (client, runs):
            began = monotonic()
            counts = await asyncio.to_thread(workers[0].finish)
            after = await shared_by(log, set(names[1:]))
            took_s = monotonic() - began
            assert not await client.pool.fetchval(ENDED, runs), "void: there was no work left"
            for at, one in before.items():
                assert after[at].epoch == one.epoch + (at in its), "its share moved once, no other"
            assert counts["fenced"] == counts["unknown_commits"] == 0
            assert counts["commands"] > 0
            assert "handed_over_unfinished" not in workers[0].diary()
            members = {member for _, member in (await standings(log)).members}
            assert members == set(names[1:]), "it is no member any more"
            await all_is_well(client, addresses, runs)
            gaps = await _gaps(client, before, its)
            print(f"handed over {len(its)} in {took_s:.2f} s; without a commit: {gaps}")
            for worker in workers[1:]:
                told = await asyncio.to_thread(worker.finish)
                assert told["fenced"] == 0
                assert "lease_lost" not in worker.diary()


async def _gaps(client: Client, before: dict, its: set) -> str:
    """For how long the log of what moved stood still, as the commits tell it."""
    found = []
    for consumer, partition in its:
        if consumer != "commands":
            continue
        gap = await client.pool.fetchval(
            "SELECT extract(epoch FROM min(time) FILTER (WHERE epoch > $2)"
            " - max(time) FILTER (WHERE epoch = $2))::float8 FROM commits WHERE partition = $1",
            partition,
            before[consumer, partition].epoch,
        )
        if gap is not None:
            found.append(gap)
    return f"median {median(found):.3f} s, longest {max(found):.3f} s" if found else "unknown"


async def test_who_is_killed_is_succeeded_after_the_lease(addresses, log):
    """F1, F24: others raise the epochs, each of what is its own."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(process(addresses, roles=ROLES, lease_s=1.0)) for _ in range(3)
        ]
        names = await asyncio.to_thread(ready, *workers)
        before = await shared_by(log, set(names))
        its = {at for at, one in before.items() if one.owner == names[0]}
        async with load(addresses) as (client, runs):
            began = monotonic()
            workers[0].kill()
            after = await shared_by(log, set(names[1:]))
            took_s = monotonic() - began
            assert not await client.pool.fetchval(ENDED, runs), "void: there was no work left"
            assert all(after[at].epoch > before[at].epoch for at in its)
            await all_is_well(client, addresses, runs)
            gaps = await _gaps(client, before, its)
            print(f"succeeded in {took_s:.2f} s; without a commit: {gaps}")

            async def forgotten():
                return names[0] not in {member for _, member in (await standings(log)).members}

            await until(forgotten, "the end of its membership")


async def test_who_comes_gets_its_share_while_there_is_work(addresses, log):
    """I5: handed over, not taken: what is in hand is finished first."""
    with process(addresses, roles=ROLES, lease_s=1.0) as first:
        names = await asyncio.to_thread(ready, first)
        alone = await shared_by(log, set(names))
        with process(addresses, roles=ROLES, lease_s=1.0) as second:
            async with load(addresses) as (client, runs):
                names += await asyncio.to_thread(ready, second)
                shared = await shared_by(log, set(names))
                assert not await client.pool.fetchval(ENDED, runs), "void: there was no work left"
                theirs = {at for at, one in shared.items() if one.owner == names[1]}
                assert theirs
                for at, one in alone.items():
                    assert shared[at].epoch == one.epoch + (at in theirs)
                await all_is_well(client, addresses, runs)
                told = [await asyncio.to_thread(worker.finish) for worker in (first, second)]
                assert all(one["fenced"] == 0 for one in told)
                assert all(one["commands"] > 0 for one in told)
                assert "lease_lost" not in first.diary() + second.diary()


async def test_ten_candidates_with_a_lease_shorter_than_their_batches_get_work_done(database):
    """F25, F26, I5: leases flap, epochs rise, and yet every partition gets on."""
    lease_s, candidates, patience_s = 0.1, 10, 30.0
    done: Counter[int] = Counter()
    fenced: Counter[str] = Counter()
    until_s = monotonic() + patience_s
    log = PostgresLog(database)
    await log.open()
    await log.cursors(WRITER)  # nobody moves ahead of the heads, so there must be some

    async def compete(name: str) -> int:
        log = PostgresLog(database, connections_max=2)
        await log.open()
        leases = Leases(log, "flapping", name, lease_s)
        await leases.start()
        while (min(done[p] for p in ALL) < 3 or not fenced) and monotonic() < until_s:
            mine = {p: cursor.epoch for p, cursor in leases.held.items()}
            time.sleep(2 * lease_s)  # noqa: ASYNC251 - a batch that stops the candidate's loop
            moves = [(p, epoch, 0) for p, epoch in mine.items()]
            ours = await log.advance("flapping", moves) if moves else set()
            done.update(ours)
            for partition in mine.keys() - ours:
                fenced[name] += 1
                held = leases.held.get(partition)
                if held is not None and held.epoch == mine[partition]:
                    leases.forget(partition)
            leases._changed.clear()
            leases._lost.clear()
            await leases.hand_over(set(leases.leaving))
            await asyncio.sleep(lease_s / 10)
        await leases.stop()
        await log.close()
        return leases.counters.taken

    def thread(number: int) -> int:
        """A loop of its own: what stops it stops no other."""
        return asyncio.run(compete(f"c{number}"))

    with ThreadPoolExecutor(candidates) as pool:
        loop = asyncio.get_running_loop()
        taken = await asyncio.gather(
            *(loop.run_in_executor(pool, thread, n) for n in range(candidates))
        )
    rows = await log.cursors("flapping")
    await log.close()
    assert min(done[p] for p in ALL) >= 3, "throughput > 0, everywhere"
    assert fenced, "void: nobody was too slow"
    assert sum(taken) == sum(row.epoch for row in rows) > PARTITIONS
