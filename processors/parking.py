"""Parked keys of the projector: an aggregate that a read model cannot follow stops there, alone.

From the event on that could not be applied, that aggregate's events are passed over for that read
model, and nobody else's; the cursor moves on. The event is a dead letter. When a person has it
retried, the aggregate's events from there on are read from the log and applied in order; discarded,
the one event is left out. All of it is in the transaction that moves the cursor, or under its lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import structlog

from aggregates import DECIDERS
from aggregates.problem import bounded
from processors.partition_state import REFUSAL
from projections.projection import Projection
from streams.codec import decode_event
from streams.log import READ_EVENTS_MAX, DeadLetter
from streams.logs import sql
from streams.logs.postgres import PostgresLog, letter_columns
from streams.message import Event

UNREACHABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,
)

LOAD = """
SELECT consumer, partition, subject, position, dead_letter_id, wanted FROM parked_keys
WHERE consumer = ANY($1::text[]) AND partition = ANY($2::int[]) AND ($3 OR wanted IS NOT NULL)
"""
"""What these consumers have parked in these partitions; all, or what a person has decided on."""

UNPARK = "DELETE FROM parked_keys WHERE consumer = $1 AND partition = $2 AND subject = $3"
"""The key is followed again."""

MESSAGE = """
SELECT convert_to(message::text, 'UTF8') FROM events WHERE partition = $1 AND position = $2
"""
"""An event's bytes."""

KNOWN = frozenset({REFUSAL}).union(*({e.__name__ for e in d.events} for d in DECIDERS))
AGGREGATES = {decider.name: {e.__name__ for e in decider.events} for decider in DECIDERS}

logger = structlog.get_logger(__name__)


class Failure(NamedTuple):
    """An event that cannot be applied, and why."""

    event: Event
    reason: str


class Wanted(NamedTuple):
    """A parked key and what shall become of it."""

    consumer: str
    partition: int
    subject: str
    position: int
    letter: str
    wanted: str | None


def is_content(error: Exception) -> bool:
    """Whether it is about what was to be written, and would be so at every further try."""
    return isinstance(error, ValueError) or not isinstance(error, UNREACHABLE)


def unknown(projection: Projection, event: Event) -> bool:
    """Whether a newer version of the code made this event, of an aggregate that is followed here.

    A read model that takes events of every type knows what it needs to.
    """
    own = AGGREGATES.get(event.aggregate)
    return own is not None and event.type not in KNOWN and not own.isdisjoint(projection.types)


@dataclass(slots=True)
class ParkedKeys:
    """What the read models of this process's partitions have parked."""

    log: PostgresLog
    keys: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    """By consumer and partition: where each parked subject stands."""

    async def load(self, consumers: Collection[str], partition: int) -> None:
        """Know what is parked in a partition that was opened."""
        for consumer in consumers:
            self.keys.pop((consumer, partition), None)
        for row in await self.log.pool.fetch(LOAD, list(consumers), [partition], True):
            key = Wanted(*row)
            self.keys.setdefault((key.consumer, partition), {})[key.subject] = key.position

    async def wanted(self, consumers: Collection[str], partitions: Collection[int]) -> list[Wanted]:
        """The keys that a person has decided on."""
        rows = await self.log.pool.fetch(LOAD, list(consumers), list(partitions), False)
        return [Wanted(*row) for row in rows]

    def passed(self, consumer: str, events: Sequence[Event]) -> Sequence[Event]:
        """The events without those of parked subjects."""
        if not self.keys:
            return events
        return [
            event
            for event in events
            if not (parked := self.keys.get((consumer, event.partition)))
            or event.subject not in parked
        ]

    # Finding what is at fault --------------------------------------------------------------------

    async def apply(
        self, connection: Any, projection: Projection, events: Sequence[Event]
    ) -> list[Failure]:
        """Apply what can be, in savepoints; the rest is parked, one key at a time."""
        groups: dict[str, list[Event]] = {}
        for event in events:
            if event.type in KNOWN or unknown(projection, event) or not projection.types:
                groups.setdefault(event.subject, []).append(event)
        failures = []
        together: list[list[str]] = [list(groups)]
        while together:
            some = together.pop()
            if len(some) == 1:
                if failure := await self.apply_one(connection, projection, groups[some[0]]):
                    failures.append(failure)
                    await self.park(connection, projection.consumer, failure)
            elif some and not await self._tried(connection, projection, groups, some):
                half = len(some) // 2
                together += [some[half:], some[:half]]
        return failures

    async def _tried(
        self, connection: Any, projection: Projection, groups: dict[str, list[Event]], some: Any
    ) -> bool:
        subjects = set(some)
        if any(unknown(projection, event) for one in subjects for event in groups[one]):
            return False
        return await _try(connection, projection, [e for one in some for e in groups[one]]) is None

    async def apply_one(
        self, connection: Any, projection: Projection, events: Sequence[Event]
    ) -> Failure | None:
        """Apply one subject's events up to the first that cannot be, which is returned."""
        for place, event in enumerate(events):
            if unknown(projection, event):
                failure = await self._first(connection, projection, events[:place])
                return failure or Failure(event, f"UNKNOWN_EVENT: {event.type}; upgrade this.")
        return await self._first(connection, projection, events)

    async def _first(
        self, connection: Any, projection: Projection, events: Sequence[Event]
    ) -> Failure | None:
        for some in _halves(events):
            error = await _try(connection, projection, some)
            if error is None:
                continue
            if len(some) == 1:
                why = f"{type(error).__name__}: {error}"
                return Failure(some[0], bounded(f"{some[0].type} cannot be applied: {why}"))
            return await self._first(connection, projection, some)
        return None

    async def park(self, connection: Any, consumer: str, failure: Failure) -> None:
        """Note in the transaction that a subject is not followed from an event on."""
        event, reason = failure
        raw = await connection.fetchval(MESSAGE, event.partition, event.position)
        letter = DeadLetter(
            "event",
            consumer,
            f"{event.partition}-{event.position}",
            reason,
            raw or b"",
            event.tenant,
            event.subject,
        )
        key = (consumer, event.partition, event.subject, event.position)
        await connection.execute(sql.PARK, *letter_columns([letter]), *key)

    def note(self, consumer: str, failures: Sequence[Failure]) -> None:
        """What was parked is committed."""
        for event, reason in failures:
            logger.error("key_parked", consumer=consumer, subject=event.subject, reason=reason)
            self.keys.setdefault((consumer, event.partition), {})[event.subject] = event.position

    # Going on with a key -------------------------------------------------------------------------

    async def catch_up(
        self, connection: Any, projection: Projection, key: Wanted, until: int
    ) -> Failure | None:
        """Apply what a key has missed, in the transaction; what fails is where it stands now."""
        after = key.position - (key.wanted == "retry")
        while after < until:
            page = await self.log.history(key.partition, key.subject, after, READ_EVENTS_MAX)
            events = [decode_event(one.message) for one in page if one.position <= until]
            after = page[-1].position if len(page) == READ_EVENTS_MAX else until
            heard = [e for e in events if e.type in projection.types or unknown(projection, e)]
            if failure := await self.apply_one(connection, projection, heard):
                await self.park(connection, key.consumer, failure)
                return failure
        await connection.execute(UNPARK, key.consumer, key.partition, key.subject)
        return None

    def caught_up(self, key: Wanted, failure: Failure | None) -> None:
        """It is committed."""
        if failure is not None:
            self.note(key.consumer, [failure])
            return
        logger.info("key_followed_again", consumer=key.consumer, subject=key.subject)
        parked = self.keys.get((key.consumer, key.partition), {})
        parked.pop(key.subject, None)
        if not parked:
            self.keys.pop((key.consumer, key.partition), None)


def _halves(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """All at once where one is left; else the first half, then the second."""
    if len(events) > 1:
        yield events[: len(events) // 2]
        yield events[len(events) // 2 :]
    elif events:
        yield events


async def _try(
    connection: Any, projection: Projection, events: Sequence[Event]
) -> Exception | None:
    """Apply events in a savepoint; what is wrong with them is returned, and nothing of them kept.

    Raises what is not about them.
    """
    try:
        async with connection.transaction():
            for text, arguments in projection.apply(events):
                await connection.execute(text, *arguments)
    except Exception as error:
        if not is_content(error):
            raise
        return error
    return None
