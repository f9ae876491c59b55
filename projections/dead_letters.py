"""The read model `dead_letters`, as far as the log tells: what was decided, and what was parked.

Most letters are put there by whoever could not handle something; see the migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from aggregates.problem import bounded
from projections.projection import Projection, Statement, columns
from streams.log import DeadLetter
from streams.message import DEFAULT_TENANT, Event

STATUS = {"DeadLetterRetried": "retried", "DeadLetterDiscarded": "discarded"}
PARKED = "CompensationParked"

# Nobody decides on another tenant's letters; what is nobody's for sure is the default tenant's.
# The decisions of one batch are applied one after the other, since a letter may have several. One
# that is applied again changes nothing: what was carried out is not due once more.
DECIDE = """
UPDATE dead_letters
SET status = $2, tries = greatest(tries, $3), decided_by = $4, decided_why = $5,
    decided_at = $6::text::timestamptz, due = due OR $3 > tries OR ($3 = 0 AND status <> $2)
WHERE dead_letter_id = $1 AND status <> 'discarded' AND coalesce(tenant, $8) = $7
"""

PARK = """
INSERT INTO dead_letters (dead_letter_id, kind, source, entry, reason, raw, raw_bytes, tenant,
    subject, time)
SELECT id, 'task', source, entry, reason, raw, octet_length(raw), tenant, subject,
    time::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[],
            $8::text[])
    AS s(id, source, entry, reason, raw, tenant, subject, time)
ON CONFLICT DO NOTHING
"""


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    parked = [_parked(event) for event in events if event.type == PARKED]
    statements: list[Statement] = [(PARK, columns(parked))] if parked else []
    for event in events:
        if event.type != PARKED:
            data, status = event.data, STATUS[event.type]
            decided = (event.root, status, data.get("attempt", 0), data["by"], data["reason"])
            statements.append((DECIDE, (*decided, event.time, event.tenant, DEFAULT_TENANT)))
    return statements


def _parked(event: Event) -> tuple[Any, ...]:
    """A task that could not be undone, as a letter: a person may have it tried again."""
    data = event.data
    letter = DeadLetter(
        "task",
        "compensation",
        f"{event.partition}-{event.position}",
        bounded(f"COMPENSATION_PARKED: {data['task']}, {data['attempts']} times: {data['error']}"),
        orjson.dumps(
            {
                "type": event.type,
                "subject": event.subject,
                "tenant": event.tenant,
                "data": data,
            }
        ),
        event.tenant,
        event.subject,
    )
    return (letter.id, *letter[1:7], event.time)


DEAD_LETTERS = Projection(
    name="dead_letters",
    version=1,
    tables=("dead_letters",),
    types=frozenset(STATUS) | {PARKED},
    apply=apply,
)
