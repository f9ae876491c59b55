"""The promise between what reads the log and what works on it: batch after batch.

A feed owns its leases, its offsets and its connections. The transport (Faust's side) only starts
it, asks it for batches and tells the agents; it keeps no position of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(slots=True)
class Batch:
    """What one read returned, in order within each of its partitions (at least one)."""

    partitions: tuple[int, ...]
    entries: Any


class Feed(Protocol):
    """What one consumer reads: a topic, the partitions that it holds by lease, batch after batch.

    A feed answers an outage by waiting and trying again. What it raises all the same is raised in
    the agent's own `async for`: the agent crashes, the feed is rewound, and a new agent begins.
    """

    @property
    def topic(self) -> str:
        """The name under which agents subscribe."""

    @property
    def partitions(self) -> int:
        """How many partitions there are, held or not."""

    async def start(self) -> None:
        """Connect and begin to take leases; an exception here ends the process."""

    async def stop(self) -> None:
        """Hand the leases over, let go of everything; agents have stopped, or `start` failed."""

    async def assignment(self) -> frozenset[int]:
        """Wait until the owned partitions differ from those last returned (none, at first).

        What `next` may read changes when this returns and at no other moment, without an `await`
        between: so an agent never sees a partition before it was told of it.
        """

    async def next(self) -> Batch | None:
        """Wait for the next batch over the owned partitions; None when nothing came for a while.

        May be cancelled at any `await`; `stop` or `rewind` follows.
        """

    async def rewind(self) -> None:
        """Go back to the durable positions: the agent crashed, and its state with it.

        What was handed out and not yet recorded in the cursors is handed out once more.
        """
