"""Redis may stop, stall, fill up or come back empty at any moment: work pauses and resumes. R14."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from time import monotonic

from redis.asyncio import Redis

from streams.embedded import Servers
from tests.system.outages import own_servers, under_load

AWAY_S = 8.0  # beyond every BLOCK, retry and lease
FROZEN_S = 10.0
CPU_SHARE_MAX = 0.2


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
