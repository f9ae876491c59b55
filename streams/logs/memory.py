"""The log in memory: the same promise without a disk, for tests and for simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from streams.chain import seal
from streams.codec import redacted
from streams.log import (
    WRITER,
    CommitRow,
    Cursor,
    DeadLetter,
    DefinitionRow,
    ParkedKey,
    Share,
    SnapshotRow,
    Stored,
)
from streams.partition import PARTITIONS_DEFAULT


class MemoryLog:
    """Keeps everything in dictionaries; each call happens at one instant, so it needs no locks."""

    def __init__(self, partitions: int = PARTITIONS_DEFAULT) -> None:
        self._partitions = partitions
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._members: dict[str, dict[str, int]] = {}
        self._events: dict[int, list[Stored]] = {p: [] for p in range(partitions)}
        self._commits: dict[int, list[CommitRow]] = {p: [] for p in range(partitions)}
        self._definitions: dict[tuple[str, int], DefinitionRow] = {}
        self._snapshots: dict[tuple[str, str], SnapshotRow] = {}
        self.parked_keys: dict[tuple[str, int, str], ParkedKey] = {}
        self.dead_letters: dict[tuple[str, str, str], DeadLetter] = {}

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def partitions(self) -> int:
        """How many partitions this log has."""
        return self._partitions

    async def cursors(self, consumer: str) -> list[Cursor]:
        """The consumer's cursors, one a partition; made at the first call."""
        for partition in range(self._partitions):
            self._cursors.setdefault((consumer, partition), Cursor(consumer, partition))
        return [replace(self._cursors[consumer, p]) for p in range(self._partitions)]

    async def take(self, seen: Sequence[Cursor], owner: str) -> list[Cursor]:
        """Raise the epoch of the cursors that are still as `seen`."""
        taken = []
        for old in seen:
            cursor = self._cursors[old.consumer, old.partition]
            if (cursor.epoch, cursor.beat) == (old.epoch, old.beat):
                cursor.owner, cursor.epoch, cursor.beat = owner, cursor.epoch + 1, 0
                taken.append(replace(cursor))
        return taken

    def _held(self, consumer: str, partition: int, epoch: int) -> Cursor | None:
        cursor = self._cursors[consumer, partition]
        return cursor if cursor.epoch == epoch and cursor.owner is not None else None

    async def beat(self, consumer: str, held: Mapping[int, int]) -> set[int]:
        """Show that we live; returns the partitions that are still ours."""
        ours = set()
        for partition, epoch in held.items():
            if cursor := self._held(consumer, partition, epoch):
                cursor.beat += 1
                ours.add(partition)
        return ours

    async def release(self, consumer: str, held: Mapping[int, int]) -> None:
        """Hand partitions back."""
        for partition, epoch in held.items():
            if cursor := self._held(consumer, partition, epoch):
                cursor.owner = None

    async def free(self, consumer: str) -> bool:
        """Whether some partition has no owner."""
        return any(c.owner is None for (name, _), c in self._cursors.items() if name == consumer)

    async def meet(self, consumer: str, member: str) -> dict[str, int]:
        """Raise the beat of a member; returns the beats of all."""
        members = self._members.setdefault(consumer, {})
        members[member] = members.get(member, 0) + 1
        return dict(members)

    async def dismiss(self, consumer: str, seen: Mapping[str, int]) -> None:
        """Remove the members whose beats are still as `seen`."""
        members = self._members.get(consumer, {})
        for member, beat in seen.items():
            if members.get(member) == beat:
                del members[member]

    async def leave(self, consumer: str, member: str, held: Mapping[int, int]) -> None:
        """Remove a member and hand its partitions back."""
        self._members.get(consumer, {}).pop(member, None)
        await self.release(consumer, held)

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        """Commit all shares whose fence holds."""
        committed = set()
        for share in shares:
            cursor = self._held(WRITER, share.partition, share.epoch)
            if cursor is None or cursor.position != share.head:
                continue
            seal(share, time)
            self._events[share.partition] += [
                Stored(share.head + 1 + i, share.types[i], share.subjects[i], message)
                for i, message in enumerate(share.messages)
            ]
            self._commits[share.partition].append(
                CommitRow(
                    share.partition,
                    share.number,
                    share.head + 1,
                    share.last,
                    share.epoch,
                    time,
                    list(share.commands),
                    share.checksums,
                    share.hash,
                )
            )
            for row in share.definitions:
                self._definitions.setdefault((row.workflow_id, row.revision), row)
            for (workflow_id, revision), row in list(self._definitions.items()):
                if workflow_id in share.archived:
                    self._definitions[workflow_id, revision] = row._replace(archived=True)
            cursor.position, cursor.commits, cursor.hash = share.last, share.number, share.hash
            cursor.stream_offset, cursor.incarnation = share.stream_offset, share.incarnation
            cursor.beat += 1
            committed.add(share.partition)
        return committed

    async def advance(self, consumer: str, moves: Sequence[tuple[int, int, int]]) -> set[int]:
        """Move cursors; returns the partitions still ours."""
        ours = set()
        for partition, epoch, position in moves:
            cursor = self._held(consumer, partition, epoch)
            if cursor and position <= len(self._events[partition]):
                cursor.position = position
                cursor.beat += 1
                ours.add(partition)
        return ours

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        """The events after a position, in order."""
        return self._events[partition][after : after + limit]

    async def history(self, partition: int, subject: str, after: int, limit: int) -> list[Stored]:
        """The events of one subject after a position, in order."""
        found = (one for one in self._events[partition][after:] if one.subject == subject)
        return list(islice(found, limit))

    async def commits(self, partition: int, after: int, limit: int) -> list[CommitRow]:
        """The commits after a number, in order."""
        return self._commits[partition][after : after + limit]

    async def recent(self, partition: int, commands: int) -> list[CommitRow]:
        """The newest commits that cover at least so many commands, oldest first."""
        rows: list[CommitRow] = []
        for row in reversed(self._commits[partition]):
            if commands <= 0:
                break
            rows.append(row)
            commands -= len(row.commands)
        return rows[::-1]

    async def definitions(
        self, wanted: Sequence[tuple[str, int]], bodies: bool = True
    ) -> list[DefinitionRow]:
        """The named revisions that exist; 0 is the newest."""
        found = []
        for workflow_id, revision in wanted:
            newest = revision or max(
                (r for w, r in self._definitions if w == workflow_id), default=0
            )
            row = self._definitions.get((workflow_id, newest))
            if row is not None:
                found.append(row if bodies else row._replace(body=b""))
        return found

    async def save(self, cursor: Cursor, position: int, states: Sequence[SnapshotRow]) -> bool:
        """Keep states as of `position`, if the lease still holds."""
        mine = self._held(cursor.consumer, cursor.partition, cursor.epoch)
        if mine is None:
            return False
        mine.snapshot = position
        for row in states:
            self._snapshots[cursor.consumer, row.subject] = row
        return True

    async def load(self, consumer: str, subjects: Sequence[str]) -> dict[str, SnapshotRow]:
        """The saved states of these subjects."""
        return {
            subject: self._snapshots[consumer, subject]
            for subject in subjects
            if (consumer, subject) in self._snapshots
        }

    async def park(self, key: ParkedKey, letter: DeadLetter) -> None:
        """Keep that a reader passes over a subject from a position on."""
        self.parked_keys[key.consumer, key.partition, key.subject] = key
        self.dead_letters[letter.kind, letter.source, letter.entry] = letter

    async def parked(self, consumers: Sequence[str], partition: int) -> list[ParkedKey]:
        """What these readers have parked in a partition."""
        return [
            key
            for key in self.parked_keys.values()
            if key.consumer in consumers and key.partition == partition
        ]

    async def unpark(
        self, cursor: Cursor, position: int, states: Sequence[SnapshotRow], key: ParkedKey
    ) -> bool:
        """Save states, and in the same instant forget that a key was parked."""
        saved = await self.save(cursor, position, states)
        if saved:
            self.parked_keys.pop((key.consumer, key.partition, key.subject), None)
        return saved

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep what could not be handled."""
        for letter in letters:
            kept = letter._replace(raw=redacted(letter.raw))
            self.dead_letters.setdefault((kept.kind, kept.source, kept.entry), kept)
