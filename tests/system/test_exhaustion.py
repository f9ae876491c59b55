"""What runs out or stands still: connections, slots of the server, the event loop. F26, F51."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import asyncpg
import pytest

from processors import app, commands
from processors.app import Worker
from processors.client import Client
from processors.command_processor import CommandProcessor
from processors.settings import Addresses
from streams.logs.postgres import PostgresLog
from streams.transport import running
from tests.system import checks
from tests.system.engine import (
    agents,
    completed,
    definition,
    engine,
    process,
    projected,
    settings,
    until,
)
from tests.system.outages import LEASE_S, own_servers, under_load

BLOCKED_S = 5.0
SHARE = "SELECT partition, epoch FROM cursors WHERE consumer = 'commands' AND owner = $1"


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


async def test_one_connection_is_enough_for_all_loops_of_a_worker(addresses, monkeypatch):
    """F51: nobody waits for a second one with the first in hand."""
    monkeypatch.setattr(app, "PostgresLog", partial(PostgresLog, connections_max=1))
    async with engine(addresses) as on, agents(addresses, ["worker"]):
        assert on.worker.log.pool.get_max_size() == 1
        created = commands.create_workflow(definition=definition(20))
        await on.client.call(created)
        said = [commands.start_execution(created.root) for _ in range(20)]
        await asyncio.gather(*(on.client.call(one) for one in said))
        await completed(on.pool, [one.root for one in said])
        await projected(on)


async def test_a_server_without_a_free_slot_is_waited_for():
    """F51: every connection of the worker is dropped, and others take their places."""
    async with own_servers() as servers, under_load(servers) as load:
        taken: list[asyncpg.Connection] = []

        async def take_all() -> None:
            while True:
                try:
                    taken.append(await asyncpg.connect(servers.database_url))
                except asyncpg.TooManyConnectionsError:
                    return

        await take_all()
        for _ in range(5):
            await taken[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'agentcore'"
            )
            await take_all()
        mine = await taken[0].fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agentcore'"
        )
        await asyncio.sleep(LEASE_S)
        for connection in taken:
            await connection.close()
        assert mine < 8, "void: the worker has kept its connections"
        assert len(taken) > 150
        await load.progress()
        await load.all_is_well(servers)
        assert "TooManyConnectionsError" in load.worker.diary(), "void: it has never met the limit"


class Blocking:
    """A worker in a thread of its own, whose event loop can be stopped by a call that blocks."""

    def __init__(self, addresses: Addresses, lease_s: float) -> None:
        self.worker = Worker(settings(addresses, lease_s), ["commands"])
        self.armed, self.ready = threading.Event(), threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._append = self.worker.log.append
        self.worker.log.append = self._blocking  # type: ignore[method-assign]

    @property
    def processor(self) -> CommandProcessor:
        """What decides."""
        [(_, processor)] = self.worker.feeds
        return processor

    async def _blocking(self, shares, moment):
        if self.armed.is_set() and shares:
            self.armed.clear()
            time.sleep(BLOCKED_S)  # noqa: ASYNC251 - the fault
        return await self._append(shares, moment)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        made = self.worker.app()
        async with running(made):
            self.ready.set()
            await made.wait(self._stop)
        await self.worker.close()

    def __enter__(self):
        self._thread.start()
        self.ready.wait(BLOCKED_S * 4)
        return self

    def __exit__(self, *_):
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def test_a_call_that_blocks_the_loop_for_longer_than_the_lease_is_fenced(addresses):
    """F26, F24: its batch is refused, another one's counts, and it takes part again."""
    lease_s = 0.6
    with Blocking(addresses, lease_s) as blocked, process(addresses, lease_s=lease_s) as other:
        await asyncio.to_thread(other.ready)
        async with Client(addresses) as client:

            async def shared() -> bool:
                """What it believes to hold is what the table says, and it is a part of all."""
                held = {p: c.epoch for p, c in blocked.processor.leases.held.items()}
                rows = await client.pool.fetch(SHARE, blocked.worker.name)
                whole = held.keys() == blocked.worker.feeds[0][0].owned
                return whole and 0 < len(held) < 16 and held == dict(rows)

            await until(shared, "a share each")
            blocked.armed.set()
            said = [commands.create_workflow(definition=definition()) for _ in range(64)]
            outcomes = await asyncio.gather(*(client.call(one) for one in said))
            assert len({(o.partition, o.first) for o in outcomes}) == len(said)
            assert not blocked.armed.is_set(), "void: it was never stopped"

            async def fenced() -> bool:
                return blocked.processor.counters.fenced > 0

            await until(fenced, "a refusal by the fence")
            await until(shared, "its share again")
            more = [commands.create_workflow(definition=definition()) for _ in range(64)]
            before = blocked.processor.counters.events
            await asyncio.gather(*(client.call(one) for one in more))
            assert blocked.processor.counters.events > before, "it works again"
            ones = await client.pool.fetchval(
                "SELECT count(*) FROM events WHERE type = 'WorkflowCreated'"
            )
            assert ones == len(said) + len(more)
            await checks.commits(client.pool)
            checks.by_subject(await checks.history(client.pool))
        other.finish()
