"""What the owner of a partition keeps in memory: the head, the aggregates, the recent commands.

Everything here can be dropped at any moment and read again from the log: states from snapshots and
the events after them, recent commands from the newest commits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from aggregates.decider import Decider
from processors.blueprints import Blueprints, attach
from processors.vocabulary import Vocabulary
from streams.codec import decode_event
from streams.log import READ_EVENTS_MAX, WRITER, Cursor, Log, SnapshotRow
from streams.message import Event, Outcome

RECENT_COMMANDS_MAX = 10_000
"""A repeat of one of the partition's so many newest commands gets the first one's outcome."""

SNAPSHOT_EVENTS = 10_000  # recovery reads at most about this many events of a partition
AGGREGATES_MAX = 10_000  # kept in memory a partition after a snapshot; the rest is loaded again

REFUSAL = "CommandRejected"
REFUSED_COMMAND = ("command_type", "command_id")
"""What the event says beside the problem; the outcome that is told has only the problem."""


@dataclass(slots=True)
class Held:
    """One aggregate's live state; `version` counts its changes."""

    decider: Decider[Any]
    state: Any
    version: int = 0
    changed: bool = False


@dataclass(slots=True)
class PartitionState:
    """One owned partition. `head` runs ahead of the log by the commit that is under way."""

    cursor: Cursor
    head: int
    number: int
    chain: bytes
    offset: str
    valid: bool = True
    mirrored: int = 0
    snapshot: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    tail: dict[str, list[Event]] = field(default_factory=dict)
    outcomes: OrderedDict[str, Outcome] = field(default_factory=OrderedDict)
    unsure: set[str] = field(default_factory=set)

    @property
    def partition(self) -> int:
        """Its number."""
        return self.cursor.partition

    def remember(self, outcome: Outcome) -> None:
        """Keep an outcome for repeats, within the bound."""
        self.outcomes[outcome.command_id] = outcome
        if len(self.outcomes) > RECENT_COMMANDS_MAX:
            self.unsure.discard(self.outcomes.popitem(last=False)[0])


async def open_partition(log: Log, cursor: Cursor) -> PartitionState:
    """The state of a partition whose lease was just taken."""
    part = PartitionState(
        cursor, cursor.position, cursor.commits, cursor.hash, cursor.stream_offset
    )
    part.snapshot = cursor.snapshot
    for commit in await log.recent(cursor.partition, RECENT_COMMANDS_MAX):
        first = commit.first
        for command_id, count in commit.commands:
            part.remember(Outcome(command_id, cursor.partition, first, first + count - 1))
            if count == 1:  # it may have been a refusal; looked up if it is ever repeated
                part.unsure.add(command_id)
            first += count
    position = cursor.snapshot
    while position < cursor.position:
        page = await log.read(cursor.partition, position, READ_EVENTS_MAX)
        for stored in page:
            part.tail.setdefault(stored.subject, []).append(decode_event(stored.message))
        position = page[-1].position
    return part


async def settle_outcomes(log: Log, part: PartitionState, command_ids: Iterable[str]) -> None:
    """Read the outcomes that recovery left open: was the one event of the command a refusal?"""
    for command_id in part.unsure.intersection(command_ids):
        outcome = part.outcomes[command_id]
        [stored] = await log.read(part.partition, outcome.first - 1, 1)
        if stored.type == REFUSAL:
            said = decode_event(stored.message).data
            outcome.problem = {k: v for k, v in said.items() if k not in REFUSED_COMMAND}
        part.unsure.discard(command_id)


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
    saved = await log.load(WRITER, missing) if part.cursor.snapshot or part.snapshot else {}
    dumps = {subject: orjson.loads(row.state) for subject, row in saved.items()}
    folds: dict[str, list[tuple[int, Any]]] = {}
    wanted = set()
    for subject in missing:
        decider = names.deciders[subject.partition("/")[0]]
        typed = [(e.version, names.event(e)) for e in part.tail.get(subject, ())]
        folds[subject] = typed
        for thing in (dumps.get(subject), *(event for _, event in typed)):
            if thing is not None and (reference := decider.reference(thing)):
                wanted.add(reference)
    found = await plans.find(wanted) if wanted else {}
    for subject in missing:
        kind, _, root = subject.partition("/")
        decider = names.deciders[kind]
        held = Held(decider, decider.initial(root))
        if (dump := dumps.get(subject)) is not None:
            reference = decider.reference(dump)
            held.state = decider.load(root, dump, found.get(reference) if reference else None)
        if subject in saved:
            held.version = saved[subject].version
        for version, event in folds[subject]:
            held.changed = True
            held.version = version
            if event is not None:
                attach(decider, event, found)
                held.state = decider.evolve(held.state, event)
        part.held[subject] = held
        part.tail.pop(subject, None)  # only now: what was awaited above may have failed


async def snapshot(
    log: Log, part: PartitionState, names: Vocabulary, plans: Blueprints
) -> list[SnapshotRow]:
    """Every aggregate that changed since the last snapshot; call while no commit is under way."""
    await load(log, part, names, plans, list(part.tail))
    rows = []
    for subject, held in part.held.items():
        if held.changed:
            state = orjson.dumps(held.decider.dump(held.state))
            rows.append(SnapshotRow(subject, held.version, state))
            held.changed = False
    return rows


def evict(part: PartitionState) -> None:
    """After a snapshot, forget the aggregates that were loaded longest ago, above the bound."""
    for subject in list(part.held)[: max(0, len(part.held) - AGGREGATES_MAX)]:
        if not part.held[subject].changed:
            del part.held[subject]
