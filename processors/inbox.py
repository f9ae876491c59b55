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
from streams.bus import Bus, BusUnavailable, by_stream
from streams.codec import Poison, decode_command
from streams.log import DeadLetter, Log, LogUnavailable
from streams.partition import COMMANDS_INBOX, FIELD, commands_key, partition_of

GROUP = "processors"
COUNT = 500
BLOCK_MS = 1_000
CLAIM_IDLE_MS = 10_000  # a worker that died leaves its entries for this long
RETRY_S = 0.5

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Inbox:
    """Moves commands to their partitions until it is cancelled."""

    log: Log
    bus: Bus
    partitions: int
    consumer: str
    moved: int = 0
    _looked: bytes = b"0-0"

    async def run(self) -> None:
        """Read, move, acknowledge; an outage is waited for."""
        while True:
            try:
                await self._make_group()
                while True:
                    await self._move(await self._claimed())
                    await self._move(await self._fresh())
                    await move_letters(self.log, self.bus)
            except (RedisError, BusUnavailable, LogUnavailable, OSError) as error:
                if "NOGROUP" not in str(error):
                    logger.warning("inbox_waits", error=str(error)[:200])
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
            COMMANDS_INBOX, GROUP, self.consumer, CLAIM_IDLE_MS, self._looked, count=100
        )
        self._looked = answer[0]
        return [(entry, fields) for entry, fields in answer[1] if fields]

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
        await self.log.bury(letters)
        await self.bus.append(out)
        ids = [entry for entry, _ in entries]
        async with self.bus.redis.pipeline(transaction=False) as pipe:
            pipe.xack(COMMANDS_INBOX, GROUP, *ids)
            pipe.xdel(COMMANDS_INBOX, *ids)
            await pipe.execute()
        self.moved += len(ids)
