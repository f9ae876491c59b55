"""Redis may stop, stall, fill up or come back empty at any moment: work pauses and resumes. R14."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis

from processors import commands
from processors.settings import Addresses
from streams.bus import MEMORY_SHARE_MAX, BusFull, BusUnavailable
from streams.embedded import Servers
from tests.processes import ROOT
from tests.system.engine import completed, until
from tests.system.outages import STARTS_AT_ONCE, own_servers, under_load

AWAY_S = 8.0  # beyond every BLOCK, retry and lease
FROZEN_S = 10.0
CPU_SHARE_MAX = 0.2
BALLAST_KEYS = 64  # of a MiB, so that the share kept free is more than the buffers of a few clients


def forget(servers: Servers) -> None:
    """Drop what Redis has on disk."""
    for file in Path(servers.redis.home).rglob("*.aof*"):
        if file.is_file():
            file.unlink()


def cpu_s(pid: int) -> float:
    """What a process has used of a processor, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_redis_is_away_for_long_and_comes_back_without_its_data():
    """F12, F29, I10, I15: what waited in it is sent again; the mirror is made again."""
    async with own_servers() as servers, under_load(servers) as load:
        await asyncio.to_thread(servers.redis.kill)
        await asyncio.sleep(0.5)  # what had been answered before is told
        before = len(load.acknowledged)
        await asyncio.sleep(AWAY_S)
        assert len(load.acknowledged) == before, "void: it was not away"
        forget(servers)
        await asyncio.to_thread(servers.redis.start)
        async with Redis.from_url(servers.redis_url) as redis:
            assert not await redis.exists("events:{0}"), "void: it has kept its data"
        await load.progress()
        counts = await load.all_is_well(servers)
        assert counts["asked_again"] + load.unanswered > 0, "void: nothing was lost"


async def test_redis_stands_still_and_nobody_spins():
    """F16: its connections stay open and answer nothing; no lease is lost in Postgres."""
    async with own_servers() as servers, under_load(servers) as load:
        pid = servers.redis.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.0)  # what is in hand ends
            used, began = cpu_s(load.worker.pid), monotonic()
            await asyncio.sleep(FROZEN_S)
            share = (cpu_s(load.worker.pid) - used) / (monotonic() - began)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert share < CPU_SHARE_MAX, f"it spins: {share:.0%} of a processor"
        await load.progress()
        await load.all_is_well(servers)
        assert "lease_lost" not in load.worker.diary()


async def test_a_redis_that_fills_up_takes_nothing_new_in_and_ends_what_is_under_way():
    """F14: intake stops at 70 % of maxmemory, before the mirror has to."""
    async with own_servers() as servers, under_load(servers) as load:
        async with Redis.from_url(servers.redis_url) as redis:
            for n in range(BALLAST_KEYS):
                await redis.set(f"ballast:{n}", bytes(1 << 20))
            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", int(used / (MEMORY_SHARE_MAX + 0.05)))
            refused = load.refused

            async def pushed_back():
                return load.refused >= refused + STARTS_AT_ONCE

            await until(pushed_back, "a refusal each")
            accepted = len(load.acknowledged)
            await completed(load.client.pool, load.acknowledged)
            before = await load.client.pool.fetchval("SELECT count(*) FROM events")
            with pytest.raises(BusFull, match="Try again later"):
                await load.client.call(commands.start_execution(load.workflow), 0.5)
            assert len(load.acknowledged) == accepted
            assert await load.client.pool.fetchval("SELECT count(*) FROM events") == before
            await redis.config_set("maxmemory", 0)
        await load.progress()
        await load.all_is_well(servers)
        assert "mirror_failed" not in load.worker.diary()


async def test_a_redis_that_is_full_stops_the_work_and_nothing_is_lost():
    """F14: every write is refused, of the mirror too; nothing half done stays."""
    async with own_servers() as servers, under_load(servers) as load:

        async def has_something_to_write():
            return load.worker.frozen

        async def was_refused():
            return "OOM" in load.worker.diary()

        async with Redis.from_url(servers.redis_url) as redis:
            load.worker.arm("before the mirror")
            await until(has_something_to_write, "a commit that is not mirrored")
            await redis.config_set("maxmemory", 1_000_000)  # less than it uses already
            with pytest.raises(BusUnavailable, match="OOM"):
                await load.client.bus.append({"s": [b"one more"]})
            load.worker.resume()
            await until(was_refused, "a mirroring that is refused")
            await asyncio.sleep(3.0)  # longer than a resend
            await redis.config_set("maxmemory", 0)
        await load.progress()
        await load.all_is_well(servers)


async def test_a_redis_that_may_evict_is_refused_at_the_start():
    """F15: with a sentence and an exit code."""
    async with own_servers() as servers:
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
        addresses = Addresses(servers.database_url, servers.redis_url)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "processors", "worker"],
            cwd=ROOT,
            env=os.environ | addresses.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 3
        assert "noeviction" in done.stderr
