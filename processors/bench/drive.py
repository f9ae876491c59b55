"""The one driver of workflows: so many at once, or by a fixed schedule, or all together.

It submits as any program does, over Redis, and knows of an end when the log has it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

from processors import commands
from processors.bench.ends import Ends
from processors.cli.exits import Failed
from processors.client import Client
from streams.log import WRITER
from streams.logs.postgres import PostgresLog

COUNT = """
SELECT count(*) FROM events WHERE type = 'TaskCompleted' AND subject = ANY($1)
AND partition = $2 AND position > $3
"""
LEAD_S = 0.02  # before the first arrival of a schedule


@dataclass(frozen=True, slots=True)
class Trip:
    """One execution: when it was due to be submitted and when its end was seen, monotonic ns."""

    execution_id: str
    due: int
    ended: int

    @property
    def ms(self) -> float:
        """From due to ended."""
        return (self.ended - self.due) / 1e6


@dataclass(slots=True)
class Driver:
    """Runs executions of one workflow."""

    client: Client
    ends: Ends
    workflow_id: str
    tasks: int

    async def at_once(self, executions: int, at_once: int, pause_s: float = 0.0) -> list[Trip]:
        """So many in all, `at_once` of them under way; each follows `pause_s` after another."""
        left = iter(range(executions))

        async def one_after_another() -> list[Trip]:
            trips = []
            for _ in left:
                trips.append(await self._run(time.monotonic_ns()))
                if pause_s:
                    await asyncio.sleep(pause_s)
            return trips

        found = await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        return [trip for trips in found for trip in trips]

    async def scheduled(self, executions: int, a_second: float) -> list[Trip]:
        """Arrivals at fixed moments, however slow the engine is; each counts from its moment.

        A thread keeps the moments: the loop's own timers are late by up to a millisecond.
        """
        loop = asyncio.get_running_loop()
        running: list[asyncio.Task[Trip]] = []
        begun = asyncio.Event()
        first = time.monotonic_ns() + int(LEAD_S * 1e9)
        moments = [first + int(n * 1e9 / a_second) for n in range(executions)]

        def submit(due: list[int]) -> None:
            running.extend(loop.create_task(self._run(moment)) for moment in due)
            if len(running) == executions:
                begun.set()

        ticker = threading.Thread(target=_tick, args=(loop, moments, submit), daemon=True)
        ticker.start()
        await begun.wait()
        return list(await asyncio.gather(*running))

    async def check(self, trips: list[Trip], heads: dict[int, int]) -> None:
        """Raise Failed where the log lacks a task of these executions, behind these heads."""
        subjects = [f"execution/{trip.execution_id}" for trip in trips]
        count: Any = self.client.pool.fetchval
        done = sum([await count(COUNT, subjects, p, head) for p, head in heads.items()])
        if done != len(trips) * self.tasks:
            expected = f"{len(trips) * self.tasks:,} tasks should have completed"
            raise Failed(f"{expected}; the log has {done:,}. The run does not count.")

    async def _run(self, due: int) -> Trip:
        start = commands.start_execution(self.workflow_id)
        ended = self.ends.expect(start.root)
        await self.client.publish(start)
        return Trip(start.root, due, await ended)


async def heads_of(log: PostgresLog) -> dict[int, int]:
    """The last position of each partition."""
    return {cursor.partition: cursor.position for cursor in await log.cursors(WRITER)}


def _tick(loop: asyncio.AbstractEventLoop, moments: list[int], submit: Any) -> None:
    """Hand on each moment when it has come; what was slept through comes together."""
    at = 0
    while at < len(moments):
        now = time.monotonic_ns()
        if now < moments[at]:
            time.sleep((moments[at] - now) / 1e9)
            now = time.monotonic_ns()
        until = at + 1
        while until < len(moments) and moments[until] <= now:
            until += 1
        try:
            loop.call_soon_threadsafe(submit, moments[at:until])
        except RuntimeError:  # the loop is closed: the measurement was ended
            return
        at = until
