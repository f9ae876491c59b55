"""What follows from decisions on dead letters: a command is given again, a parked key read again.

The table is the queue: a decision's event makes its letter due, and here it is carried out and is
not due any more. A crash in between does it once more, which is harmless: commands keep their ids.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from processors.access.own import SignedTokens
from processors.agents.wire import COMPENSATION, decode_assignment
from processors.sealing import open_raw
from streams.bus import Bus, BusUnavailable
from streams.codec import Poison, decode_command, encode_command, stamped
from streams.ending import end
from streams.log import LogUnavailable
from streams.logs.postgres import UNREACHABLE, PostgresLog
from streams.message import Command
from streams.partition import commands_key, partition_of
from streams.sealing.keyring import Keyring
from streams.sealing.sealer import Unopenable

CARRIED_PER_S = 50.0  # by one worker: a thousand letters that are retried at once are no storm
CARRIED_AT_ONCE = 10
TICK_S = CARRIED_AT_ONCE / CARRIED_PER_S
IDLE_S = 1.0  # between two looks where nothing is due
PUBLISH_S = 1.5  # less than PostgreSQL allows a transaction to be idle

DUE = """
SELECT dead_letter_id, kind, status, source, raw, raw_bytes, tries, decided_why, decided_by, tenant
FROM dead_letters WHERE due ORDER BY decided_at LIMIT $1 FOR UPDATE SKIP LOCKED
"""
"""What was decided and is not done yet, held until it is."""

DONE = "UPDATE dead_letters SET due = false WHERE dead_letter_id = ANY($1::text[])"
"""It is done."""

WANT = """
UPDATE parked_keys SET wanted = $2 WHERE dead_letter_id = $1
"""
"""Tell the reader that parked a key what it shall do with it."""

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class LetterCarrier:
    """Carries decisions out until it is stopped; any number of workers may."""

    log: PostgresLog
    bus: Bus
    keys: Keyring | None = None
    engine: SignedTokens | None = None
    """Signs for what was admitted before; None where nobody asks for tokens."""
    carried: int = 0
    _carrying: asyncio.Task[None] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin; a second call changes nothing."""
        if self._carrying is None:
            self._carrying = asyncio.create_task(self._run(), name="dead letters")

    async def stop(self) -> None:
        """End; what is due stays due."""
        await end(self._carrying)
        self._carrying = None

    async def _run(self) -> None:
        while True:
            try:
                found = await self.round()
            except (BusUnavailable, LogUnavailable, TimeoutError, *UNREACHABLE) as error:
                logger.warning("dead_letters_wait", error=repr(error)[:200])
                found = 0
            await asyncio.sleep(TICK_S if found else IDLE_S)

    async def round(self) -> int:
        """Carry out a few of the decisions that are due; returns how many."""
        async with self.log.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(DUE, CARRIED_AT_ONCE)
            if not rows:
                return 0
            partitions = await self.log.partitions()
            messages: dict[str, list[bytes]] = {}
            for row in rows:
                if row["kind"] == "event":
                    wanted = "retry" if row["status"] == "retried" else "skip"
                    await connection.execute(WANT, row["dead_letter_id"], wanted)
                elif row["status"] == "retried" and (found := await self._again(row, partitions)):
                    messages.setdefault(found[0], []).append(found[1])
            if messages:
                async with asyncio.timeout(PUBLISH_S):
                    await self.bus.append(messages)
            await connection.execute(DONE, [row["dead_letter_id"] for row in rows])
        self.carried += len(rows)
        return len(rows)

    async def _again(self, row: Any, partitions: int) -> tuple[str, bytes] | None:
        try:
            raw = await open_raw(self.keys, row["dead_letter_id"], row["raw"])
        except Unopenable as error:
            letter = row["dead_letter_id"]
            logger.warning("dead_letter_not_opened", letter=letter, reason=str(error))
            return None
        return _again(row, raw, partitions, self.engine)


def _again(
    row: Any, raw: bytes, partitions: int, engine: SignedTokens | None = None
) -> tuple[str, bytes] | None:
    """Stream and bytes of what is to be given again; None where nothing can be.

    What has a tenant was admitted once, as that tenant's, and is so again. What has none never was:
    it goes as it came, without a token, and is refused again where tokens are asked for.
    """
    token = None
    if engine is not None and row["tenant"] is not None:
        token = engine.of(row["tenant"])
    if row["kind"] == "command":
        try:
            command = decode_command(raw)
        except Poison:  # perhaps a newer version of the engine understands it, where it was
            return row["source"], raw
        command.token = None  # what was kept of it is no token
        key = commands_key(partition_of(command.root, partitions))
        return key, raw if token is None else stamped(encode_command(command), token)
    if row["kind"] == "task" and (again := _task_again(row, raw)):
        key = commands_key(partition_of(again.root, partitions))
        return key, stamped(encode_command(again), token)
    logger.warning("dead_letter_not_retried", letter=row["dead_letter_id"], kind=row["kind"])
    return None


def _task_again(row: Any, raw: bytes) -> Command | None:
    """The command that has a task done, or undone, once more."""
    try:
        parked = orjson.loads(raw)
        if isinstance(parked, dict) and parked.get("type") == "CompensationParked":
            execution = parked["subject"].partition("/")[2]
            task, kind, tenant = parked["data"]["task"], "RetryCompensation", parked["tenant"]
        else:
            said = decode_assignment(raw)
            execution, task, tenant = said.execution_id, said.task_id, said.tenant
            kind = "RetryCompensation" if said.kind == COMPENSATION else "RetryExecution"
    except (Poison, ValueError, KeyError, TypeError):
        return None
    return Command(
        f"letter:{row['dead_letter_id']}:{row['tries']}",
        kind,
        "execution",
        execution,
        {"task": task, "reason": row["decided_why"]},
        tenant,
        row["decided_by"],
    )
