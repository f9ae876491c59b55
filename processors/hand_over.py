"""What the command processor has just committed, for readers in the same process.

They need not wait until it has been to Redis and back. The way over Redis and the table stays: for
partitions whose events are committed elsewhere, and after every gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

EVENTS_MAX = 20_000
"""Of one partition, kept until they are taken: a reader that is further behind reads the log."""


class HandOver:
    """The newest commits of this process, each given once, in order, to one reader."""

    def __init__(self, head: Callable[[int], int | None]) -> None:
        """`head` is the last committed position of a partition, None where it is not ours."""
        self._head = head
        self._given: dict[int, tuple[int, list[bytes]]] = {}
        self._arrived = asyncio.Event()
        self.taker: Callable[[], bool] = lambda: False
        """Asked after every commit whether it takes all of it, before anybody is woken."""

    @property
    def partitions(self) -> Collection[int]:
        """Those of which something is here."""
        return self._given.keys()

    def give(self, partition: int, first: int, messages: Sequence[bytes]) -> None:
        """Events that are committed, from this position on; `given` says that it is all."""
        if not messages:
            return
        start, kept = self._given.get(partition, (first, []))
        if first != start + len(kept) or len(kept) + len(messages) > EVENTS_MAX:
            start, kept = first, []
        kept.extend(messages)
        self._given[partition] = (start, kept)

    def given(self) -> None:
        """A whole commit is here: it is taken at once, or whoever waits for it is woken."""
        if self._given and not self.taker():
            self._arrived.set()

    def take(self, positions: Mapping[int, int]) -> dict[int, list[bytes]]:
        """What follows on these positions, of partitions of which it is here."""
        self._arrived.clear()
        found = {}
        given, self._given = self._given, {}
        for partition, (start, messages) in given.items():
            position = positions.get(partition)
            if position is None:
                continue  # whoever takes the partition up begins with the log
            known = position + 1 - start
            if 0 <= known < len(messages):
                found[partition] = messages[known:] if known else messages
        return found

    def elsewhere(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Of these positions, those that are behind or in partitions that are not ours."""
        head = self._head
        return {p: at for p, at in positions.items() if head(p) != at}

    def wake(self) -> None:
        """End the wait: there is something elsewhere."""
        self._arrived.set()

    async def arrived(self) -> None:
        """Wait until something was given since the last `take`."""
        await self._arrived.wait()
