"""The promise of the log: fenced appends, gapless positions, cursors that are leases, reading back.

`logs/postgres.py` and `logs/memory.py` keep it; one contract suite runs against both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol

WRITER = "commands"
"""The consumer whose cursors are the heads of the partitions: the command processors."""

RAW_BYTES_MAX = 12 * 1024 * 1024
"""So much is kept of a dead letter: whatever a command may be. Of what is longer, the begin."""

READ_EVENTS_MAX = 4_000  # some megabytes; to decode and fold so many takes less than 20 ms


class CommitUnknown(Exception):
    """The answer to a commit was lost: take the partitions again and read their heads."""


class Unacceptable(Exception):
    """The database refused the content of a commit; nothing of it was stored."""


class LogUnavailable(Exception):
    """The log cannot be reached at the moment; nothing was changed."""


@dataclass(slots=True)
class Cursor:
    """How far one consumer has come in one partition, and under which lease.

    For the writer, `position` is the partition's head, `commits` how many commits led there and
    `hash` the last of their chain; `stream_offset` is what it has read of its command stream in
    that stream's `incarnation`. `snapshot` is the position that the saved states stand at.
    """

    consumer: str
    partition: int
    owner: str | None = None
    epoch: int = 0
    beat: int = 0
    position: int = 0
    commits: int = 0
    hash: bytes = b""
    stream_offset: str = "0-0"
    incarnation: str = ""
    snapshot: int = 0


Handled = tuple[str, int] | tuple[str, int, int]
"""A command's id, how many of the commit's events are its, and the digest of what it said; commits
that were written before there were digests have none."""


class DefinitionRow(NamedTuple):
    """One immutable revision of a workflow, stored with the event that wrote it."""

    workflow_id: str
    revision: int
    tenant: str
    digest: str
    archived: bool
    body: bytes


@dataclass(slots=True)
class Share:
    """One partition's share of a commit: its fence, its events, and where its cursor goes.

    `commands` lists the commands in order, each with how many of the events are its.
    """

    partition: int
    epoch: int
    head: int
    number: int
    previous: bytes
    types: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    commands: list[Handled] = field(default_factory=list)
    stream_offset: str = "0-0"
    incarnation: str = ""
    hash: bytes = b""
    checksums: bytes = b""
    definitions: list[DefinitionRow] = field(default_factory=list)
    archived: list[str] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The head after this share."""
        return self.head + len(self.messages)


class CommitRow(NamedTuple):
    """One stored commit."""

    partition: int
    number: int
    first: int
    last: int
    epoch: int
    time: datetime
    commands: list[Handled]
    checksums: bytes
    hash: bytes


class Stored(NamedTuple):
    """One stored event: its columns and its bytes."""

    position: int
    type: str
    subject: str
    message: bytes


class SnapshotRow(NamedTuple):
    """A saved state of one subject, as of a version of it."""

    subject: str
    version: int
    state: bytes


class DeadLetter(NamedTuple):
    """What could not be handled: where it came from, why, and its bytes.

    `kind` is command, event, task or hook; `source` and `entry` say which one, so that the same one
    is kept once. `tenant` and `subject` are there where they are known.
    """

    kind: str
    source: str
    entry: str
    reason: str
    raw: bytes
    tenant: str | None = None
    subject: str | None = None
    size: int | None = None
    """How many bytes there were, where `raw` is sealed."""

    @property
    def id(self) -> str:
        """The same for the same thing, so that it is kept once."""
        name = f"{self.kind}\n{self.source}\n{self.entry}"
        return sha256(name.encode()).hexdigest()[:32]


class ParkedKey(NamedTuple):
    """A subject that one reader does not hear of any more, from a position on; see `Log.park`.

    `wanted` is what a person has decided: "retry", "skip", or nothing yet.
    """

    consumer: str
    partition: int
    subject: str
    position: int
    wanted: str | None = None


class Log(Protocol):
    """The append-only truth and the small tables that stand beside it."""

    async def open(self) -> None:
        """Connect; a second call changes nothing. Raises LogUnavailable."""

    async def close(self) -> None:
        """Let go of the connections."""

    async def partitions(self) -> int:
        """How many partitions this log has; fixed when it was created."""

    async def cursors(self, consumer: str) -> list[Cursor]:
        """The consumer's cursors, one a partition; made at the first call."""

    async def take(self, seen: Sequence[Cursor], owner: str) -> list[Cursor]:
        """Raise the epoch of the cursors that are still as `seen`; returns those that we got."""

    async def beat(self, consumer: str, held: Mapping[int, int]) -> set[int]:
        """Show that we live, for partition -> epoch; returns the partitions that are still ours."""

    async def release(self, consumer: str, held: Mapping[int, int]) -> None:
        """Hand partitions back, so that the next owner need not wait."""

    async def free(self, consumer: str) -> bool:
        """Whether some partition of the consumer has no owner; asked several times a second."""

    async def meet(self, consumer: str, member: str) -> dict[str, int]:
        """Raise the beat of a member, new or known; returns the beats of all members."""

    async def dismiss(self, consumer: str, seen: Mapping[str, int]) -> None:
        """Remove the members whose beats are still as `seen`."""

    async def leave(self, consumer: str, member: str, held: Mapping[int, int]) -> None:
        """Remove a member and hand its partitions back, both at once."""

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        """Commit all shares whose fence holds, at once; returns their partitions.

        Raises CommitUnknown, or Unacceptable when the content was refused.
        """

    async def advance(self, consumer: str, moves: Sequence[tuple[int, int, int]]) -> set[int]:
        """Move cursors, (partition, epoch, position) each; returns the partitions still ours.

        One that would be ahead of the log, which may have lost its end, is not ours any more.
        """

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        """The events after a position, in order."""

    async def history(self, partition: int, subject: str, after: int, limit: int) -> list[Stored]:
        """The events of one subject after a position, in order."""

    async def commits(self, partition: int, after: int, limit: int) -> list[CommitRow]:
        """The commits after a number, in order."""

    async def recent(self, partition: int, commands: int) -> list[CommitRow]:
        """The newest commits that cover at least so many commands, oldest first."""

    async def definitions(
        self, wanted: Sequence[tuple[str, int]], bodies: bool = True
    ) -> list[DefinitionRow]:
        """The named revisions (workflow id, revision; 0 is the newest) that exist.

        Without `bodies` each body is b"": enough to know the newest, and whether it is archived.
        """

    async def save(self, cursor: Cursor, position: int, states: Sequence[SnapshotRow]) -> bool:
        """Keep states as of `position`, if the cursor's lease still holds."""

    async def load(self, consumer: str, subjects: Sequence[str]) -> dict[str, SnapshotRow]:
        """The saved states of these subjects, where there are any."""

    async def park(self, key: ParkedKey, letter: DeadLetter) -> None:
        """Keep that a reader passes over a subject from a position on, with its dead letter.

        A letter that was there is open again, and nothing is wanted of the key any more.
        """

    async def parked(self, consumers: Sequence[str], partition: int) -> list[ParkedKey]:
        """What these readers have parked in a partition."""

    async def unpark(
        self, cursor: Cursor, position: int, states: Sequence[SnapshotRow], key: ParkedKey
    ) -> bool:
        """Save states as `save` does, and in the same instant forget that a key was parked."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep what could not be handled; a repeat changes nothing."""
