"""The inbox: what strangers publish is moved on, also what a dead worker had taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from processors import commands
from processors.inbox import DELIVERIES_MAX, GROUP, Inbox
from processors.settings import Addresses
from streams.bus import Bus
from streams.codec import encode_command
from streams.ending import end
from streams.logs.memory import MemoryLog
from streams.partition import COMMANDS_INBOX, commands_key
from tests.system.engine import engine, until

BUSY = 1_500  # more than one look of XAUTOCLAIM goes through


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = Bus(redis_url)
    yield made
    await made.close()


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[Inbox]:
    """An inbox at work on one partition."""
    inbox = Inbox(MemoryLog(1), bus, 1, "live")
    task = asyncio.create_task(inbox.run())
    try:
        yield inbox
    finally:
        await end(task)


def said(number: int) -> list[bytes]:
    """So many commands."""
    return [
        encode_command(commands.register_agent(commands.new_id(), name="a", roles=["r"]))
        for _ in range(number)
    ]


async def moved(bus: Bus, count: int) -> list[bytes]:
    """Wait until so many have come to the partition."""

    async def all_of_them() -> list[bytes]:
        there = [raw async for _, raw in bus.scan(commands_key(0))]
        return there if len(there) >= count else []

    return await until(all_of_them, f"{count} commands")


async def test_what_a_dead_worker_took_is_moved_though_much_is_in_work(bus: Bus) -> None:
    """Pitfall 8: entries that others work on do not hide those that nobody works on."""
    redis: Any = bus.redis
    await redis.xgroup_create(COMMANDS_INBOX, GROUP, id="0", mkstream=True)
    busy, lost = said(BUSY), said(3)
    await bus.append({COMMANDS_INBOX: busy})
    await redis.xreadgroup(GROUP, "busy", {COMMANDS_INBOX: ">"}, count=BUSY)
    entries = (await bus.append({COMMANDS_INBOX: lost}))[COMMANDS_INBOX]
    await redis.xreadgroup(GROUP, "dead", {COMMANDS_INBOX: ">"}, count=10)
    await redis.xclaim(COMMANDS_INBOX, GROUP, "dead", 0, entries, idle=3_600_000)
    async with running(bus) as inbox:
        await bus.append({COMMANDS_INBOX: [b"?"]})  # so that it need not wait for something new
        assert await moved(bus, 3) == lost
        await until(lambda: _is(inbox.moved == 4), "their acknowledgement")
    pending = await redis.xpending(COMMANDS_INBOX, GROUP)
    assert pending["pending"] == BUSY, "what is in work was left alone"


async def test_what_was_taken_too_often_is_a_dead_letter_and_its_neighbours_are_moved(
    bus: Bus,
) -> None:
    """R32, I20: whatever it is that ends each worker which takes it, it ends no more of them."""
    redis: Any = bus.redis
    await redis.xgroup_create(COMMANDS_INBOX, GROUP, id="0", mkstream=True)
    poison, well = said(2)
    entries = (await bus.append({COMMANDS_INBOX: [poison, well]}))[COMMANDS_INBOX]
    await redis.xreadgroup(GROUP, "dead", {COMMANDS_INBOX: ">"}, count=10)
    # One on the edge would go over it where a reply of Redis is lost, and it is taken again.
    often = {entries[0]: DELIVERIES_MAX, entries[1]: DELIVERIES_MAX - 2}
    for entry, times in often.items():
        await redis.xclaim(
            COMMANDS_INBOX, GROUP, "dead", 0, [entry], idle=3_600_000, retrycount=times
        )
    async with running(bus) as inbox:
        assert await moved(bus, 1) == [well]
        await until(lambda: _is(inbox.moved == 1), "its acknowledgement")
        assert inbox.poison == 1
        [letter] = inbox.log.dead_letters.values()  # type: ignore[attr-defined]
        assert (letter.raw, letter.entry) == (poison, entries[0].decode())
        taken = re.match("POISON: It was taken ([0-9]+) times", letter.reason)
        assert taken is not None
        assert int(taken[1]) > DELIVERIES_MAX
        assert (await redis.xpending(COMMANDS_INBOX, GROUP))["pending"] == 0
        assert await redis.xlen(COMMANDS_INBOX) == 0


async def test_what_was_deleted_while_somebody_had_it_is_counted(bus: Bus) -> None:
    """Pitfall 7: it is gone, and is not silently so."""
    redis: Any = bus.redis
    await redis.xgroup_create(COMMANDS_INBOX, GROUP, id="0", mkstream=True)
    entries = (await bus.append({COMMANDS_INBOX: said(3)}))[COMMANDS_INBOX]
    await redis.xreadgroup(GROUP, "dead", {COMMANDS_INBOX: ">"}, count=10)
    await redis.xclaim(COMMANDS_INBOX, GROUP, "dead", 0, entries, idle=3_600_000)
    await redis.xdel(COMMANDS_INBOX, *entries[:2])
    async with running(bus) as inbox:
        await moved(bus, 1)
        await until(lambda: _is(inbox.lost > 0), "the count")
        await until(lambda: _is(inbox.moved == 1), "what was still there")
        assert inbox.lost == 2
        assert (await redis.xpending(COMMANDS_INBOX, GROUP))["pending"] == 0


async def _is(answer: bool) -> bool:
    return answer


async def test_a_group_that_was_lost_with_redis_is_made_anew(bus: Bus) -> None:
    """Pitfall 14: from its beginning, so that nothing published meanwhile is skipped."""
    async with running(bus):
        first, second = said(2)
        await bus.append({COMMANDS_INBOX: [first]})
        await moved(bus, 1)
        await bus.redis.flushdb()
        await bus.append({COMMANDS_INBOX: [second]})
        assert await moved(bus, 1) == [second]


async def test_two_workers_share_the_inbox_and_nothing_is_lost(
    database: str, redis_url: str, bus: Bus
) -> None:
    """R51, I4: whoever reads it, each command takes effect once."""
    addresses = Addresses(database, redis_url)
    async with engine(addresses) as on:
        other = Inbox(on.worker.log, bus, 16, "other")
        task = asyncio.create_task(other.run())
        try:
            for _ in range(20):
                await bus.append({COMMANDS_INBOX: said(10)})
                await asyncio.sleep(0)

            async def all_of_them() -> bool:
                return bool(await on.pool.fetchval("SELECT count(*) = 200 FROM events"))

            await until(all_of_them, "200 events")
        finally:
            await end(task)
        assert other.moved + on.feed("commands").inbox.moved == 200
        assert on.processor.counters.repeats == 0
