"""Tasks of a host that died go to the others; a host that lives shows it.

Every host refreshes what it has in hand, so that only a dead host's tasks grow idle. Idleness is
Redis's clock, which may jump: a task is taken when it was found idle twice, with a refresh of any
live owner in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError

from processors.agents.agent import Role
from processors.agents.desk import Desk
from processors.agents.outbox import GROUP
from processors.agents.reader import message_of
from streams.bus import Bus

logger = structlog.get_logger(__name__)

LEASE_S = 30.0  # a host that shows no sign of life for so long loses what it had
BEATS = 3  # signs of life in that time
LOOK_ENTRIES_MAX = 100  # of one stream at one look: longer lists hold Redis up
REFRESH_ENTRIES_MAX = 1_000


class Claims:
    """Refreshes one host's tasks, and takes over those of hosts that do not."""

    def __init__(
        self, bus: Bus, name: str, roles: Sequence[Role], desk: Desk, lease_s: float = LEASE_S
    ) -> None:
        self.taken = 0
        self._bus = bus
        self._name = name
        self._roles = roles
        self._desk = desk
        self._lease_s = lease_s
        self._suspects: set[tuple[bytes, bytes]] = set()

    async def run(self) -> None:
        """Beat, and look around at every second beat, for ever."""
        while True:
            for look in (False, True):
                await asyncio.sleep(self._lease_s / BEATS)
                try:
                    await self._refresh()
                    if look:
                        await self._look()
                except (RedisError, OSError) as error:
                    self._suspects.clear()
                    logger.warning("claims_failed", host=self._name, error=str(error)[:200])

    async def _refresh(self) -> None:
        """What is in hand is not idle."""
        calls: list[tuple[Any, ...]] = []
        for stream, entries in self._desk.entries().items():
            for at in range(0, len(entries), REFRESH_ENTRIES_MAX):
                some = entries[at : at + REFRESH_ENTRIES_MAX]
                calls.append((b"XCLAIM", stream, GROUP, self._name, 0, *some, b"JUSTID"))
        await self._call(calls)

    async def _look(self) -> None:
        """Take what was idle at the last look and still is, as far as there is room."""
        idle_ms = int(self._lease_s * 1000)
        asks = (b"IDLE", idle_ms, b"-", b"+", LOOK_ENTRIES_MAX)
        found = await self._call([(b"XPENDING", role.stream, GROUP, *asks) for role in self._roles])
        suspects: set[tuple[bytes, bytes]] = set()
        claims: list[tuple[Role, tuple[Any, ...]]] = []
        for role, pending in zip(self._roles, found, strict=True):
            idle = [(role.stream, row[0]) for row in pending if row[1] != self._name.encode()]
            suspects.update(idle)
            lost = [entry for stream, entry in idle if (stream, entry) in self._suspects]
            if lost := lost[: role.free]:
                claims.append((role, (b"XCLAIM", role.stream, GROUP, self._name, idle_ms, *lost)))
        self._suspects = suspects
        answers = await self._call([call for _, call in claims])
        for (role, _), entries in zip(claims, answers, strict=True):
            for entry, fields in filter(None, entries):
                self.taken += 1
                self._desk.take(role, entry, message_of(fields))

    async def _call(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """All in one round trip, with Redis's own replies (a name in bytes is not converted)."""
        async with self._bus.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call)
            return list(await pipe.execute())
