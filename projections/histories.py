"""The read model `histories`: where in the log each aggregate's events lie."""

from __future__ import annotations

from collections.abc import Sequence

from projections.projection import Projection, Statement, columns
from streams.message import Event

WIDEN = """
INSERT INTO histories AS h (subject, partition, first_position, last_position)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[])
ON CONFLICT (subject) DO UPDATE SET last_position = excluded.last_position
"""


def apply(events: Sequence[Event]) -> list[Statement]:
    """One statement: the batch's first and last position of each aggregate."""
    spans: dict[tuple[str, str], list[int]] = {}
    for event in events:
        span = spans.get((event.aggregate, event.root))
        if span is None:
            position = event.position
            spans[event.aggregate, event.root] = [event.partition, position, position]
        else:
            span[2] = event.position
    rows = [(f"{kind}/{root}", *span) for (kind, root), span in spans.items()]
    return [(WIDEN, columns(rows))]


HISTORIES = Projection(
    name="histories", version=1, tables=("histories",), types=frozenset(), apply=apply
)
