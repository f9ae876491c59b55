"""The stream `commands`, for publishers that cannot compute a partition: every entry is moved on.

A consumer group, since order between commands of strangers means nothing and any worker may help.
Moved twice after a crash is harmless: the command's id is the same. On its way round it also stores
the dead letters of agent hosts, which know no database.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError, ResponseError

from processors.agents.letters import move_letters
from processors.sealing import seal_letters
from streams.bus import Bus, BusUnavailable, by_stream
from streams.codec import Poison, decode_command
from streams.log import DeadLetter, Log, LogUnavailable
from streams.partition import COMMANDS_INBOX, FIELD, commands_key, partition_of
from streams.sealing.keyring import Keyring

GROUP = "processors"
COUNT = 500
BLOCK_MS = 1_000
CLAIM_IDLE_MS = 10_000  # a worker that died leaves its entries for this long
CLAIM_COUNT = 100  # of one look; ten thousand at once would block Redis for a tenth of a second
DELIVERIES_MAX = 5  # what was taken so often and never moved on is kept, and not tried again
RETRY_S = 0.5

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Inbox:
    """Moves commands to their partitions until it is cancelled."""

    log: Log
    bus: Bus
    partitions: int
    consumer: str
    keys: Keyring | None = None
    moved: int = 0
    lost: int = 0
    """Entries that were gone from the stream while somebody had them: trimmed, or deleted."""
    poison: int = 0
    _looked: bytes = b"0-0"

    async def run(self) -> None:
        """Read, move, acknowledge; an outage is waited for."""
        while True:
            try:
                await self._make_group()
                while True:
                    await self._move(await self._claimed())
                    await self._move(await self._fresh())
                    await move_letters(self.log, self.bus, self.keys)
                    if self.keys is not None:
                        await self.keys.refresh()
            except (RedisError, BusUnavailable, LogUnavailable, OSError) as error:
                if "NOGROUP" not in str(error):
                    logger.warning("inbox_waits", error=str(error)[:200])
                    await asyncio.sleep(RETRY_S)
            except (
                Exception
            ):  # a mistake over one batch; it is claimed and tried again, then buried
                logger.exception("inbox_failed")
                await asyncio.sleep(RETRY_S)

    async def _make_group(self) -> None:
        try:
            await self.bus.redis.xgroup_create(COMMANDS_INBOX, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _fresh(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        answer: Any = await self.bus.redis.xreadgroup(
            GROUP, self.consumer, {COMMANDS_INBOX: ">"}, count=COUNT, block=BLOCK_MS
        )
        return by_stream(answer).get(COMMANDS_INBOX, [])

    async def _claimed(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        # From where the last look ended: from the start, entries that are not idle hide the rest.
        answer: Any = await self.bus.redis.xautoclaim(
            COMMANDS_INBOX, GROUP, self.consumer, CLAIM_IDLE_MS, self._looked, count=CLAIM_COUNT
        )
        self._looked = answer[0]
        there = [(entry, fields) for entry, fields in answer[1] if fields]
        gone = list(answer[2]) if len(answer) > 2 else []
        if len(there) < len(answer[1]):  # Redis 6.2 hands us what is gone, without its id
            ours: Any = await self.bus.redis.xpending_range(
                COMMANDS_INBOX, GROUP, "-", "+", COUNT, self.consumer
            )
            known = {entry for entry, _ in there}
            gone += [one["message_id"] for one in ours if one["message_id"] not in known]
        if gone:
            self.lost += len(gone)
            logger.warning("inbox_entries_lost", entries=len(gone))
            await self.bus.redis.xack(COMMANDS_INBOX, GROUP, *gone)
        return await self._without_poison(there) if there else []

    async def _without_poison(
        self, entries: list[tuple[bytes, dict[bytes, bytes]]]
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries but for those that were delivered too often: they become dead letters."""
        pending: Any = await self.bus.redis.xpending_range(
            COMMANDS_INBOX, GROUP, entries[0][0], entries[-1][0], COUNT, self.consumer
        )
        times = {one["message_id"]: one["times_delivered"] for one in pending}
        poison = [one for one in entries if times.get(one[0], 0) > DELIVERIES_MAX]
        if not poison:
            return entries
        letters = [
            DeadLetter(
                "command",
                COMMANDS_INBOX,
                entry.decode(),
                f"POISON: It was taken {times[entry]} times and never moved on.",
                fields.get(FIELD, b""),
            )
            for entry, fields in poison
        ]
        await self.log.bury(await seal_letters(self.keys, letters))
        await self._done([entry for entry, _ in poison])
        self.poison += len(poison)
        return [one for one in entries if one not in poison]

    async def _move(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        if not entries:
            return
        out: dict[str, list[bytes]] = defaultdict(list)
        letters = []
        for entry, fields in entries:
            raw = fields.get(FIELD, b"")
            try:
                root = decode_command(raw).root
                out[commands_key(partition_of(root, self.partitions))].append(raw)
            except Poison as error:
                letters.append(
                    DeadLetter("command", COMMANDS_INBOX, entry.decode(), str(error), raw)
                )
        await self.log.bury(await seal_letters(self.keys, letters))
        await self.bus.append(out)
        await self._done([entry for entry, _ in entries])
        self.moved += len(entries)

    async def _done(self, ids: list[bytes]) -> None:
        async with self.bus.redis.pipeline(transaction=False) as pipe:
            pipe.xack(COMMANDS_INBOX, GROUP, *ids)
            pipe.xdel(COMMANDS_INBOX, *ids)
            await pipe.execute()
