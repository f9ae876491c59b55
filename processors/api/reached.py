"""How far the read models have come: one look at the cursors for all requests that wait."""

from __future__ import annotations

import asyncio

from processors.api.problems import Problem
from processors.api.trouble import AWAY, RETRY_AFTER_S, busy, unavailable
from projections import PROJECTIONS
from streams.ending import end
from streams.log import WRITER
from streams.logs.postgres import PostgresLog

WAIT_S_MAX = 5.0  # projectors are milliseconds behind, or something is amiss
LOOK_S = 0.01  # between two looks at the cursors while somebody waits
WAITERS_MAX = 1_000

REACHED = """
SELECT head.partition, head.position,
       (SELECT coalesce(min(c.position), 0) FROM cursors AS c
        WHERE c.partition = head.partition AND c.consumer = ANY($2::text[]))
FROM cursors AS head WHERE head.consumer = $1 AND head.partition = ANY($3::int[])
"""
"""How far some partitions reach, and how far all read models have come in them."""


class Reached:
    """Wakes whoever waits for the read models; one task while anybody does."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, partition: int, position: int) -> None:
        """Until the read models are there; raises Problem where that cannot be, or takes long."""
        if len(self._waiting) >= WAITERS_MAX:
            raise busy("More reads wait for a position than may")
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()
        self._waiting[reached] = (partition, position)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="read models' positions")
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                await reached
        except TimeoutError:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            detail = f"The read models have not reached {partition}:{position} yet; try again."
            raise Problem("READ_MODEL_BEHIND", detail, headers=headers) from None
        finally:
            self._waiting.pop(reached, None)

    async def _look(self) -> None:
        consumers = [projection.consumer for projection in PROJECTIONS]
        while self._waiting:
            partitions = sorted({partition for partition, _ in self._waiting.values()})
            try:
                rows = await self._log.pool.fetch(REACHED, WRITER, consumers, partitions)
            except AWAY:
                self._tell(unavailable("PostgreSQL"))
                return
            stand = {partition: (head, reached) for partition, head, reached in rows}
            for future, (partition, position) in list(self._waiting.items()):
                head, reached = stand.get(partition, (0, 0))
                if not future.done() and position <= reached:
                    future.set_result(None)
                elif not future.done() and position > head:
                    future.set_exception(_beyond(partition, position))
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Look no more."""
        await end(self._task)

    def _tell(self, problem: Problem) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(problem)


def _beyond(partition: int, position: int) -> Problem:
    detail = f"The log has not come to {partition}:{position}; name the position of a write."
    return Problem("INVALID_VALUE", detail, parameter="min_position")
