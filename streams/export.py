"""The log as lines that prove themselves: every event, every commit with its hash, and who looked.

Each line is a CloudEvent in JSON. A partition's events stand as they were stored, behind each
commit's last event the commit; then the trail of reads; the last line says where all of it ended.
Whoever has the lines can recompute every hash without a database. Somebody who rewrites all of them
can do so too: that is told by the digest, which is kept elsewhere.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from streams.codec import SOURCE, SPEC_VERSION
from streams.log import WRITER, CommitRow, Log

COMMIT, READ, END = "agentcore.Commit", "agentcore.Read", "agentcore.End"
PAGE_COMMITS = 500


def _line(kind: str, name: str, subject: str, time: str, data: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "specversion": SPEC_VERSION,
            "id": name,
            "source": SOURCE,
            "type": kind,
            "subject": subject,
            "time": time,
            "data": data,
        }
    )


async def partition_lines(log: Log, partition: int, ends: dict[str, Any]) -> AsyncIterator[bytes]:
    """One partition up to where it is now; `ends` is told where that was."""
    [cursor] = [c for c in await log.cursors(WRITER) if c.partition == partition]
    position = number = 0
    while number < cursor.commits:
        page = await log.commits(partition, number, min(PAGE_COMMITS, cursor.commits - number))
        if not page:
            break
        for commit in page:
            while position < commit.last:
                stored = await log.read(partition, position, commit.last - position)
                if not stored:
                    break
                for event in stored:
                    yield event.message
                position = stored[-1].position
            yield commit_line(commit)
            number = commit.number
    ends[str(partition)] = {
        "position": cursor.position,
        "commits": cursor.commits,
        "hash": cursor.hash.hex(),
    }


def commit_line(commit: CommitRow) -> bytes:
    """A commit: what its hash was computed over, but for the events before it."""
    return _line(
        COMMIT,
        f"{commit.partition}-commit-{commit.number}",
        f"partition/{commit.partition}",
        commit.time.astimezone(UTC).isoformat(timespec="microseconds"),
        {
            "number": commit.number,
            "first": commit.first,
            "last": commit.last,
            "epoch": commit.epoch,
            "commands": commit.commands,
            "checksums": b64encode(commit.checksums).decode(),
            "hash": commit.hash.hex(),
        },
    )


def read_line(row: dict[str, Any]) -> bytes:
    """A row of the trail of reads."""
    said = {name: value for name, value in row.items() if name not in ("time", "hash", "subject")}
    said["hash"] = row["hash"].hex()
    time = row["time"].astimezone(UTC).isoformat(timespec="microseconds")
    return _line(READ, f"read-{row['number']}", row["subject"], time, said)


def end_line(ends: dict[str, Any], reads: dict[str, Any], time: datetime) -> bytes:
    """Where the partitions and the trail of reads ended; the last line."""
    stamp = time.astimezone(UTC).isoformat(timespec="microseconds")
    return _line(END, "end", "log", stamp, {"partitions": ends, "reads": reads})


def digest_of(ends: dict[str, Any], reads: dict[str, Any]) -> str:
    """One short text for the whole export: whoever keeps it can tell another history from this."""
    return sha256(orjson.dumps([ends, reads], option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
