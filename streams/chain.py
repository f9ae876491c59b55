"""The hash chain over a partition's commits, and the check that nothing in it was changed."""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from zlib import crc32

import orjson

from streams.log import WRITER, CommitRow, Cursor, Handled, Log, Share, Stored

PAGE_COMMITS = 1_000
PAGE_EVENTS = 4_000
PARTITIONS_AT_ONCE = 4  # while some are being read, another's hashes are computed


BEGIN_QUOTES = 20  # of five names and five values


@dataclass(slots=True)
class Report:
    """What a check of one partition found; `position` and `reason` name the first damage."""

    partition: int
    events: int
    commits: int
    ok: bool = True
    position: int | None = None
    reason: str | None = None


def link(
    previous: bytes,
    partition: int,
    number: int,
    epoch: int,
    first: int,
    time: datetime,
    commands: Sequence[Handled],
    checksums: bytes,
    messages: Sequence[bytes],
) -> bytes:
    """The hash of a commit: sha256 over the one before, its own columns and its events' bytes."""
    stamp = time.astimezone(UTC).isoformat(timespec="microseconds")
    digest = sha256(previous)
    digest.update(orjson.dumps([partition, number, epoch, first, stamp, commands]))
    digest.update(checksums)
    if messages:  # each with a line break before it; at once, as it is large
        digest.update(b"\n" + b"\n".join(messages))
    return digest.digest()


def checksums_of(messages: Sequence[bytes]) -> bytes:
    """Four bytes an event (CRC-32): the hash says that a commit was changed, these say where."""
    checksums = array("I", map(crc32, messages))
    if sys.byteorder == "little":
        checksums.byteswap()
    return checksums.tobytes()


def seal(share: Share, time: datetime) -> None:
    """Give a share the checksums and the hash that it has when it is committed at `time`."""
    share.checksums = checksums_of(share.messages)
    share.hash = link(
        share.previous,
        share.partition,
        share.number,
        share.epoch,
        share.head + 1,
        time,
        share.commands,
        share.checksums,
        share.messages,
    )


async def verify_all(log: Log, partitions: Iterable[int]) -> list[Report]:
    """Recompute the chains of some partitions, a few of them at a time; in the order given."""
    at_once = asyncio.Semaphore(PARTITIONS_AT_ONCE)

    async def one(partition: int) -> Report:
        async with at_once:
            return await verify(log, partition)

    return await asyncio.gather(*map(one, partitions))


async def verify(log: Log, partition: int) -> Report:
    """Recompute one partition's chain from its first event to its head."""
    [cursor] = [c for c in await log.cursors(WRITER) if c.partition == partition]
    report = Report(partition, 0, 0)
    previous = b""
    stored = _Events(log, partition)
    while report.ok:
        page = await log.commits(partition, report.commits, PAGE_COMMITS)
        page = [row for row in page if row.number <= cursor.commits]  # the log goes on meanwhile
        if not page:
            return _head(report, cursor, previous)
        for commit in page:
            _check(report, commit, await stored.until(commit.last, page[-1].last), previous)
            if not report.ok:
                break
            previous = commit.hash
            report.commits, report.events = commit.number, commit.last
    return report


class _Events:
    """A partition's events in order, read a page at a time whatever the size of commits."""

    def __init__(self, log: Log, partition: int) -> None:
        self._log, self._partition = log, partition
        self._page: list[Stored] = []
        self._used = 0
        self._after = 0

    async def until(self, last: int, wanted: int) -> list[Stored]:
        """Those that are left up to a position; all up to `wanted` will be asked for."""
        while self._after < last and await self._read(wanted):
            pass
        begin = end = self._used
        page = self._page
        if self._after <= last:
            end = len(page)
        else:
            # Positions are dense, so this is where it ends; where some are missing, before that.
            end = min(len(page), begin + max(0, last - page[begin].position + 1))
            while end > begin and page[end - 1].position > last:
                end -= 1
        self._used = end
        return page[begin:end]

    async def _read(self, wanted: int) -> bool:
        """One page more; False where there is none."""
        count = min(PAGE_EVENTS, max(1, wanted - self._after))
        found = await self._log.read(self._partition, self._after, count)
        if found:
            self._page = self._page[self._used :] + found
            self._used, self._after = 0, found[-1].position
        return bool(found)


def _check(report: Report, commit: CommitRow, stored: Sequence[Stored], previous: bytes) -> None:
    """Note the first thing that is wrong with a commit and its events."""
    expected = report.events + 1
    if commit.number != report.commits + 1 or commit.first != expected:
        _damage(report, expected, f"commit {report.commits + 1} is missing or was moved")
        return
    for event in stored:
        if event.position != expected:
            _damage(report, expected, "the event is missing")
            return
        if not (_begins(event, report.partition) or _says(event, report.partition)):
            _damage(report, expected, "the event's columns and its message disagree")
            return
        expected += 1
    if expected != commit.last + 1:
        _damage(report, expected, "the event is missing")
        return
    messages = [event.message for event in stored]
    recomputed = link(
        previous,
        report.partition,
        commit.number,
        commit.epoch,
        commit.first,
        commit.time,
        commit.commands,
        commit.checksums,
        messages,
    )
    if recomputed != commit.hash:
        _damage(report, *_place(commit, messages))


def _begins(event: Stored, partition: int) -> bool:
    """Whether the message's bytes begin as we write them, with what its columns say.

    Tells most messages in a third of the time that reading them takes; the others are to be read.
    The id has partition and position; that nothing behind it was changed, the hash says.
    """
    position, kind, subject, message = event
    begin = (
        f'{{"specversion":"1.0","id":"{partition}-{position}","source":"agentcore",'
        f'"type":"{kind}","subject":"{subject}",'
    )
    return (
        message.startswith(begin.encode())
        and begin.count('"') == BEGIN_QUOTES  # else a column could hold more than one value
        and "\\" not in begin
    )


def _says(event: Stored, partition: int) -> bool:
    """Whether the message, when it is read, says what its columns do."""
    try:
        envelope = orjson.loads(event.message)
        return bool(
            envelope["position"] == event.position
            and envelope["partition"] == partition
            and envelope["type"] == event.type
            and envelope["subject"] == event.subject
        )
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return False


def _place(commit: CommitRow, messages: Sequence[bytes]) -> tuple[int, str]:
    """Which event of a changed commit was changed, as far as the checksums still tell."""
    now = checksums_of(messages)
    for i in range(len(messages)):
        if now[4 * i : 4 * i + 4] != commit.checksums[4 * i : 4 * i + 4]:
            return commit.first + i, "the event was changed: the hash of its commit differs"
    span = f"positions {commit.first} to {commit.last}"
    return commit.first, f"commit {commit.number} ({span}) was changed: its hash differs"


def _head(report: Report, cursor: Cursor, previous: bytes) -> Report:
    if cursor.position != report.events or cursor.hash != previous:
        _damage(report, report.events + 1, f"the log ends before its head, {cursor.position}")
    return report


def _damage(report: Report, position: int, reason: str) -> None:
    report.ok, report.position, report.reason = False, position, reason
