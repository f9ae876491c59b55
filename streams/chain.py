"""The hash chain over a partition's commits, and the check that nothing in it was changed."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from zlib import crc32

import orjson

from streams.log import WRITER, CommitRow, Cursor, Handled, Log, Share, Stored

PAGE_COMMITS = 1_000
PAGE_EVENTS = 10_000


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


async def verify(log: Log, partition: int) -> Report:
    """Recompute one partition's chain from its first event to its head."""
    [cursor] = [c for c in await log.cursors(WRITER) if c.partition == partition]
    report = Report(partition, 0, 0)
    previous = b""
    while report.ok:
        page = await log.commits(partition, report.commits, PAGE_COMMITS)
        page = [row for row in page if row.number <= cursor.commits]  # the log goes on meanwhile
        if not page:
            return _head(report, cursor, previous)
        for commit in page:
            stored = await _events(log, partition, report.events, commit.last - report.events)
            _check(report, commit, stored, previous)
            if not report.ok:
                break
            previous = commit.hash
            report.commits, report.events = commit.number, commit.last
    return report


async def _events(log: Log, partition: int, after: int, count: int) -> list[Stored]:
    stored: list[Stored] = []
    while len(stored) < count:
        page = await log.read(partition, after + len(stored), min(PAGE_EVENTS, count - len(stored)))
        if not page:
            break
        stored += page
    return stored


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
        try:
            envelope = orjson.loads(event.message)
            same = (
                envelope["position"] == event.position
                and envelope["partition"] == report.partition
                and envelope["type"] == event.type
                and envelope["subject"] == event.subject
            )
        except (orjson.JSONDecodeError, TypeError, KeyError):
            same = False
        if not same:
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
