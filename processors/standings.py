"""Who owns which partition and how far it has come, for people and for metrics; one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from processors.process_manager import TOPIC as MANAGERS
from processors.projector import TOPIC as PROJECTIONS
from streams.log import WRITER
from streams.logs.postgres import PostgresLog

CONSUMERS = (WRITER, MANAGERS, PROJECTIONS)

# The projections' own cursors, which nobody owns, are left out; members that own nothing are not.
STANDINGS = """
SELECT c.consumer, c.partition, c.owner, c.epoch, c.beat, head.position AS head, c.position,
       greatest(head.position - c.position, 0) AS lag
FROM cursors AS c JOIN cursors AS head ON head.partition = c.partition AND head.consumer = $2
WHERE c.consumer = ANY($1::text[])
UNION ALL
SELECT consumer, NULL, member, NULL, beat, NULL, NULL, NULL
FROM members WHERE consumer = ANY($1::text[])
ORDER BY 1, 2, 3
"""


class Standing(NamedTuple):
    """One partition of one consumer; positions are counted in events."""

    consumer: str
    partition: int
    owner: str | None
    epoch: int
    beat: int
    head: int
    position: int
    lag: int


class Standings(NamedTuple):
    """Every partition's standing, and the beat of each (consumer, member)."""

    partitions: list[Standing]
    members: dict[tuple[str, str], int]


async def standings(log: PostgresLog, consumers: Sequence[str] = CONSUMERS) -> Standings:
    """How all partitions of these consumers stand at this moment; raises LogUnavailable."""
    rows = await log.fetch(STANDINGS, list(consumers), WRITER)
    return Standings(
        [Standing(*row) for row in rows if row["partition"] is not None],
        {(row["consumer"], row["owner"]): row["beat"] for row in rows if row["partition"] is None},
    )
