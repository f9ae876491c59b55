"""A long log in little time: copies of one real execution, appended as a writer appends.

Every copy has ids of its own; the chain of hashes is whole, so `verify` finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import orjson
from uuid_utils import uuid7

from processors.bench.backlog import ids_of
from processors.cli.exits import Failed
from processors.process_manager import TOPIC as MANAGERS
from streams.log import WRITER, Cursor, Handled, Share
from streams.logs.postgres import PostgresLog
from streams.partition import partition_of

OWNER = "copies"
COMMIT_EVENTS = 4_000  # of all partitions together
MOVE = """
UPDATE cursors AS c SET position = head.position FROM cursors AS head
WHERE c.consumer = $1 AND head.consumer = $2 AND head.partition = c.partition
"""

Envelope = dict[str, Any]


async def template(log: PostgresLog, execution_id: str) -> list[Envelope]:
    """The events of an execution that has ended, as they are stored."""
    partition = partition_of(execution_id, await log.partitions())
    stored = await log.history(partition, f"execution/{execution_id}", 0, COMMIT_EVENTS)
    found = [orjson.loads(event.message) for event in stored]
    if not found or found[-1]["type"] != "ExecutionCompleted":
        raise Failed(f"The execution {execution_id} is no template: it has not completed.")
    return found


async def append_copies(log: PostgresLog, events: Sequence[Envelope], count: int) -> int:
    """At least so many events more, evenly over all partitions; returns how many there were.

    No engine may run meanwhile: ours is the writer's lease. Process managers go on behind the
    copies, since nothing follows from what has ended; read models do not.
    """
    cursors = await log.take(await log.cursors(WRITER), OWNER)
    if len(cursors) != await log.partitions():
        raise Failed("A worker holds the log; copies are made where none runs.")
    ids = {c.partition: ids_of(c.partition, len(cursors)) for c in cursors}
    each = max(1, COMMIT_EVENTS // len(events) // len(cursors))
    done = 0
    while done < count:
        shares = [_share(cursor, events, ids[cursor.partition], each) for cursor in cursors]
        if len(await log.append(shares, datetime.now(UTC))) != len(shares):
            raise Failed("A worker took the log while copies were made.")
        for cursor, share in zip(cursors, shares, strict=True):
            cursor.position, cursor.hash = share.last, share.hash
            cursor.commits = share.number
        done += len(events) * each * len(cursors)
    await log.release(WRITER, {cursor.partition: cursor.epoch for cursor in cursors})
    await log.pool.execute(MOVE, MANAGERS, WRITER)
    return done


def _share(cursor: Cursor, events: Sequence[Envelope], ids: Iterator[str], copies: int) -> Share:
    share = Share(
        cursor.partition,
        cursor.epoch,
        cursor.position,
        cursor.commits + 1,
        cursor.hash,
        stream_offset=cursor.stream_offset,
        incarnation=cursor.incarnation,
    )
    for _ in range(copies):
        subject = f"execution/{next(ids)}"
        for _, caused in groupby(events, key=lambda event: event["causationid"]):
            command = str(uuid7())
            group = list(caused)
            handled: Handled = (command, len(group))
            share.commands.append(handled)
            for event in group:
                _add(share, event, subject, command)
    return share


def _add(share: Share, event: Envelope, subject: str, command: str) -> None:
    position = share.last + 1
    own = {
        "id": f"{share.partition}-{position}",
        "subject": subject,
        "causationid": command,
        "correlationid": command,
        "partition": share.partition,
        "position": position,
    }
    share.types.append(event["type"])
    share.subjects.append(subject)
    share.messages.append(orjson.dumps(event | own))
