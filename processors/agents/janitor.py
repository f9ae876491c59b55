"""Takes away what hosts that never came back have left: their names, not their tasks.

A consumer with pending entries stays, since deleting it would forget them for ever; a name that
comes back is made again by its first read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError

from processors.agents.agent import Role
from processors.agents.outbox import GROUP
from streams.bus import Bus
from streams.partition import HOSTS, HOSTS_CARDS

logger = structlog.get_logger(__name__)

ROUND_S = 60.0  # all streams of a host are looked at once in so long
FORGET_S = 600.0  # a host that was away for so long is not expected back
DELETED_MAX = 100  # consumers of one stream at one look

# ARGV: the least idle time in ms, then consumers.
DELETE = """
local idle = {}
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'agents')) do
  local said = {}
  for i = 1, #c, 2 do said[c[i]] = c[i + 1] end
  if said.pending == 0 and said.idle >= tonumber(ARGV[1]) then idle[said.name] = true end
end
local deleted = 0
for i = 2, #ARGV do
  if idle[ARGV[i]] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'agents', ARGV[i])
    deleted = deleted + 1
  end
end
return deleted
"""

# Only what nobody has written since.
FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[2], ARGV[1])
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
"""


class Janitor:
    """Goes round the streams of one host."""

    def __init__(
        self, bus: Bus, name: str, roles: Sequence[Role], forget_s: float = FORGET_S
    ) -> None:
        self.deleted = 0
        self.forgotten = 0
        self._redis = bus.redis
        self._name = name
        self._roles = roles
        self._forget_s = forget_s
        self._seen: dict[bytes, tuple[bytes, float]] = {}

    async def run(self) -> None:
        """Look at one stream after the other, for ever."""
        while True:
            for role in self._roles:
                await asyncio.sleep(ROUND_S / len(self._roles))
                try:
                    await self.sweep(role.stream)
                except (RedisError, OSError) as error:
                    logger.info("janitor_waits", host=self._name, error=str(error)[:200])
            try:
                await self.forget()
            except (RedisError, OSError) as error:
                logger.info("janitor_waits", host=self._name, error=str(error)[:200])

    async def sweep(self, stream: bytes) -> None:
        """Delete consumers that are gone and have nothing, a bounded number."""
        idle_ms = int(self._forget_s * 1000)
        rows: Any = await self._redis.xinfo_consumers(stream, GROUP)
        gone = [r["name"] for r in rows if r["pending"] == 0 and r["idle"] >= idle_ms]
        if not gone:
            return
        known = {*await self._redis.hkeys(HOSTS), self._name.encode()}
        some = [name for name in gone if name not in known][:DELETED_MAX]
        if some:
            self.deleted += await self._redis.eval(DELETE, 1, stream, idle_ms, *some)

    async def forget(self) -> None:
        """Take hosts off the list whose beat has not changed for long, on our own clock."""
        now = asyncio.get_running_loop().time()
        shown: Any = await self._redis.hgetall(HOSTS)
        seen = {}
        for name, said in shown.items():
            before, since = self._seen.get(name, (b"", now))
            seen[name] = (said, since if before == said else now)
            if now - seen[name][1] >= self._forget_s:
                keys = (HOSTS, HOSTS_CARDS)
                self.forgotten += await self._redis.eval(FORGET, 2, *keys, name, said)
        self._seen = seen
