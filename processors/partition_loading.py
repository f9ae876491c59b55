"""Aggregates into the memory of a partition's owner: from snapshots and the events after them.

A snapshot that is damaged, of another version of the code, or that the events after it do not
follow on, is not used: the aggregate is folded from all of its events. One that cannot be folded
either (an event of a newer version of the code, a bug) is known to be unreadable, and stops nobody
else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from aggregates.decider import Blueprint, Decider, Reference
from aggregates.problem import bounded
from processors.blueprints import Blueprints, attach
from processors.partition_state import REFUSAL, Held, PartitionState
from processors.saved import Saved, Unusable, seal, spoiled, unseal
from processors.vocabulary import Vocabulary
from streams.codec import decode_event
from streams.log import READ_EVENTS_MAX, WRITER, Log, SnapshotRow
from streams.message import Event

SNAPSHOT_EVENTS = 10_000  # recovery reads at most about this many events of a partition
SNAPSHOT_BYTES = 32 * 1024 * 1024  # and this many bytes, where events are large
AGGREGATES_MAX = 10_000  # kept in memory a partition after a snapshot; the rest is loaded again
HELD_BYTES_MAX = 32 * 1024 * 1024  # of their states as they are saved; the rest likewise

logger = structlog.get_logger(__name__)

Found = dict[Reference, Blueprint]


class Unreadable(Exception):
    """The state of an aggregate cannot be known to this version of the code."""


async def load(
    log: Log, part: PartitionState, names: Vocabulary, plans: Blueprints, subjects: Iterable[str]
) -> None:
    """Bring aggregates into memory: from their snapshot and the events after it, or as new."""
    missing = [
        subject
        for subject in subjects
        if subject not in part.held and subject.partition("/")[0] in names.deciders
    ]
    if not missing:
        return
    rows = await log.load(WRITER, missing) if part.cursor.snapshot or part.snapshot else {}
    saved: dict[str, Saved] = {}
    anew: list[str] = []
    wanted: set[Reference] = set()
    for subject in missing:
        decider = names.deciders[subject.partition("/")[0]]
        events = part.tail.get(subject, ())
        try:
            if row := rows.get(subject):
                saved[subject] = unseal(row, decider.form)
                wanted |= _references(decider, [saved[subject].state])
            elif events and events[0].version > (events[0].type != REFUSAL):
                raise Unusable("it is missing")
            wanted |= _references(decider, typed(names, events))
        except (Unusable, Unreadable) as error:
            anew.append(_noted(part, subject, error))
    found = await plans.find(wanted) if wanted else {}
    for subject in missing:
        if subject in anew:
            continue
        held = _new(names, subject)
        events = part.tail.get(subject, ())
        try:
            if subject in saved:
                _take(held, subject, rows[subject].version, saved[subject], found)
                held.size = len(rows[subject].state)
            _fold(held, names, events, found)
            held.changed = bool(events)
        except Exception as error:
            anew.append(_noted(part, subject, error))
        else:
            part.held[subject] = held
            part.tail.pop(subject, None)  # only now: what was awaited above may have failed
    for subject in anew:
        part.held[subject] = await _replayed(log, part.partition, names, plans, subject)
        part.tail.pop(subject, None)


def typed(names: Vocabulary, events: Iterable[Event]) -> list[Any]:
    """The events that change a state; raises Unreadable where one is not known to this code."""
    return [_typed(names, event) for event in events if event.type != REFUSAL]


def _typed(names: Vocabulary, event: Event) -> Any:
    try:
        known = names.event(event)
    except TypeError as error:  # fields that are not known, or are not there
        raise Unreadable(f"UNKNOWN_EVENT: {event.type} at {event.position}: {error}") from error
    if known is None:
        raise Unreadable(f"UNKNOWN_EVENT: {event.type} at {event.position}; upgrade this worker.")
    return known


def _references(decider: Decider[Any], things: Iterable[Any]) -> set[Reference]:
    return {found for thing in things if (found := decider.reference(thing)) is not None}


def _new(names: Vocabulary, subject: str) -> Held:
    kind, _, root = subject.partition("/")
    decider = names.deciders[kind]
    return Held(decider, decider.initial(root))


def _take(held: Held, subject: str, version: int, saved: Saved, found: Found) -> None:
    decider = held.decider
    reference = decider.reference(saved.state)
    blueprint = found.get(reference) if reference else None
    held.state = decider.load(subject.partition("/")[2], saved.state, blueprint)
    held.version, held.tenant = version, saved.tenant


def _fold(held: Held, names: Vocabulary, events: Iterable[Event], found: Found) -> None:
    decider = held.decider
    for event in events:
        if event.type == REFUSAL:
            continue
        if event.version != held.version + 1:
            raise Unreadable(f"version {event.version} follows on {held.version}")
        one = _typed(names, event)
        attach(decider, one, found)
        held.state = decider.evolve(held.state, one)
        held.version = event.version
        held.tenant = held.tenant or event.tenant


async def _replayed(
    log: Log, partition: int, names: Vocabulary, plans: Blueprints, subject: str
) -> Held:
    """An aggregate from all of its events, a page at a time; unreadable if that fails too."""
    held, position = _new(names, subject), 0
    while page := await log.history(partition, subject, position, READ_EVENTS_MAX):
        events = [decode_event(stored.message) for stored in page]
        position = page[-1].position
        try:
            wanted = _references(held.decider, typed(names, events))
        except Unreadable as error:
            return _unreadable(names, subject, error)
        found = await plans.find(wanted) if wanted else {}
        try:
            _fold(held, names, events, found)
        except Exception as error:
            return _unreadable(names, subject, error)
        if len(page) < READ_EVENTS_MAX:
            break
    held.changed = True
    return held


def _unreadable(names: Vocabulary, subject: str, error: Exception) -> Held:
    reason = str(error) if isinstance(error, Unreadable) else repr(error)
    logger.error("aggregate_unreadable", subject=subject, reason=reason[:300])
    held = _new(names, subject)
    held.unreadable, held.changed = bounded(reason, 300), True
    return held


def _noted(part: PartitionState, subject: str, error: Exception) -> str:
    part.fallbacks += 1
    logger.warning("snapshot_not_used", subject=subject, error=repr(error)[:300])
    return subject


async def snapshot(
    log: Log, part: PartitionState, names: Vocabulary, plans: Blueprints
) -> list[SnapshotRow]:
    """Every aggregate that changed since the last snapshot; call while no commit is under way."""
    await load(log, part, names, plans, list(part.tail))
    rows = []
    for subject, held in part.held.items():
        if held.changed:
            if held.unreadable:  # whoever can read its events folds them all
                rows.append(spoiled(subject, held.version))
            else:
                state = held.decider.dump(held.state)
                rows.append(seal(subject, held.version, held.decider.form, state, held.tenant))
            held.size, held.changed = len(rows[-1].state), False
    return rows


def due(part: PartitionState) -> bool:
    """Whether so much has happened since the snapshot that recovery would take long."""
    return part.head - part.snapshot >= SNAPSHOT_EVENTS or part.unsaved >= SNAPSHOT_BYTES


def evict(part: PartitionState) -> None:
    """After a snapshot, forget the aggregates that were loaded longest ago, above the bounds."""
    count, size = len(part.held), sum(held.size for held in part.held.values())
    for subject, held in list(part.held.items()):
        if count <= AGGREGATES_MAX and size <= HELD_BYTES_MAX:
            return
        count, size = count - 1, size - held.size
        if not held.changed:
            del part.held[subject]
