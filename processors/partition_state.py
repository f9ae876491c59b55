"""What the owner of a partition keeps in memory: the head, the aggregates, the recent commands.

Everything here can be dropped at any moment and read again from the log: recent commands from the
newest commits, states as `partition_loading` says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aggregates.decider import Decider
from streams.codec import decode_event
from streams.log import READ_EVENTS_MAX, Cursor, Log
from streams.message import Event, Outcome

RECENT_COMMANDS_MAX = 10_000
"""A repeat of one of the partition's so many newest commands gets the first one's outcome."""

REFUSAL = "CommandRejected"
REFUSED_COMMAND = ("command_type", "command_id", "command_tenant")
"""What the event says beside the problem; the outcome that is told has only the problem."""


@dataclass(slots=True)
class Held:
    """One aggregate's live state; `version` counts its changes."""

    decider: Decider[Any]
    state: Any
    version: int = 0
    changed: bool = False
    size: int = 0
    """Bytes of its state when it was last saved; 0 before."""
    tenant: str = ""
    """Whose it is: the tenant of its first event; nobody's before."""
    unreadable: str = ""
    """Why its state cannot be known here, where that is so: nothing can be decided for it."""


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
    unsaved: int = 0
    """Bytes of the events after the snapshot."""
    held: dict[str, Held] = field(default_factory=dict)
    tail: dict[str, list[Event]] = field(default_factory=dict)
    outcomes: OrderedDict[str, Outcome] = field(default_factory=OrderedDict)
    unsure: set[str] = field(default_factory=set)
    conflicts: set[str] = field(default_factory=set)
    """Recent commands of which a conflicting one is among the dead letters already."""
    crashes: dict[str, int] = field(default_factory=dict)
    """How often the state broke when a command's events were folded; outlives the state."""
    fallbacks: int = 0
    """Saved states that could not be used and were folded from the log."""

    @property
    def partition(self) -> int:
        """Its number."""
        return self.cursor.partition

    def remember(self, outcome: Outcome) -> None:
        """Keep an outcome for repeats."""
        self.outcomes[outcome.command_id] = outcome

    def forget_old(self) -> None:
        """Keep the outcomes within their bound; once a batch."""
        for _ in range(len(self.outcomes) - RECENT_COMMANDS_MAX):
            forgotten, _ = self.outcomes.popitem(last=False)
            self.unsure.discard(forgotten)
            self.conflicts.discard(forgotten)


async def open_partition(log: Log, cursor: Cursor) -> PartitionState:
    """The state of a partition whose lease was just taken."""
    part = PartitionState(
        cursor, cursor.position, cursor.commits, cursor.hash, cursor.stream_offset
    )
    part.snapshot = cursor.snapshot
    for commit in await log.recent(cursor.partition, RECENT_COMMANDS_MAX):
        first = commit.first
        for command_id, count, *said in commit.commands:
            outcome = Outcome(command_id, cursor.partition, first, first + count - 1)
            outcome.digest = said[0] if said else None
            part.remember(outcome)
            part.forget_old()
            if count == 1:  # it may have been a refusal; looked up if it is ever repeated
                part.unsure.add(command_id)
            first += count
    position = cursor.snapshot
    while position < cursor.position:
        page = await log.read(cursor.partition, position, READ_EVENTS_MAX)
        for stored in page:
            part.tail.setdefault(stored.subject, []).append(decode_event(stored.message))
            part.unsaved += len(stored.message)
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
