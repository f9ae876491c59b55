"""All that the followers of one process share, its bounds and its counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aggregates.problem import Refused
from processors.following.belonging import Belonging
from processors.following.hub import Hub
from processors.following.stored import Stored
from streams.bus import Bus
from streams.log import WRITER
from streams.logs.postgres import PostgresLog


class TooMany(Exception):
    """As many follow as may; come back later."""


class Following:
    """The hub, the stored events, and who follows."""

    def __init__(self, log: PostgresLog, bus: Bus, followers_max: int) -> None:
        self.partitions = 0
        self.hub = Hub(log, bus, Belonging(log.fetch, self._count))
        self.stored = Stored()
        self.followers = 0
        self._log = log
        self._followers_max = followers_max

    def _count(self) -> int:
        return self.partitions

    @contextmanager
    def place(self) -> Iterator[None]:
        """Be one of the followers; raises TooMany."""
        if self.followers >= self._followers_max:
            raise TooMany(f"{TooMany.__doc__}")
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1

    async def make_sure_of(self, after: dict[int, int]) -> None:
        """Raise Refused where somebody has come further than the log has."""
        heads = {c.partition: c.position for c in await self._log.cursors(WRITER)}
        for partition, position in after.items():
            if position > heads[partition]:
                detail = f"`from` is past the end of partition {partition}, {heads[partition]}."
                raise Refused("INVALID_VALUE", detail)

    async def close(self) -> None:
        """End everything."""
        await self.hub.close()
