"""Tasks of a host that died go to the others; a host that lives shows it.

Every host refreshes what it has in hand, so that only a dead host's tasks grow idle. Idleness is
Redis's clock, which may jump: a task is taken when it was found idle twice, with a refresh of any
live owner in between, and not while that clock and ours disagree. What another host has taken
meanwhile is dropped here: nobody wants this host's answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError

from processors.agents.agent import Role
from processors.agents.desk import Desk
from processors.agents.outbox import GROUP, Outbox
from processors.agents.reader import message_of
from processors.agents.work import Key, Work
from streams.bus import Bus

logger = structlog.get_logger(__name__)

LEASE_S = 10.0  # a host that shows no sign of life for so long loses what it had
LEASE_S_MIN = 0.3  # below this, a busy event loop loses tasks
BEATS = 3  # signs of life, and looks at the others', in that time
REFRESH_ENTRIES_MAX = 500  # in one script: below 2 ms of the server's time
PAGE_ENTRIES_MAX = 1_000  # in one look at a stream; the command only reads
LOOK_PAGES_MAX = 10
CLAIM_ENTRIES_MAX = 100  # in one script, each perhaps with a large body
RETRY_S = 0.5  # after an error the next beat comes sooner: what is in hand grows idle

# ARGV: the consumer, then each entry and how often it had been handed out (0: as it is): reading
# one's own entries again counts, and must not look like the death of a host. Returns what is not
# the consumer's any more, each with whether it is another's.
REFRESH = """
local lost = {}
for i = 2, #ARGV, 2 do
  local held = redis.pcall('XPENDING', KEYS[1], 'agents', ARGV[i], ARGV[i], 1)[1]
  if held and held[2] == ARGV[1] then
    local times = ARGV[i + 1] == '0' and held[4] or ARGV[i + 1]
    redis.call('XCLAIM', KEYS[1], 'agents', ARGV[1], 0, ARGV[i], 'RETRYCOUNT', times, 'JUSTID')
  else
    lost[#lost + 1] = {ARGV[i], held and 1 or 0}
  end
end
return lost
"""

# ARGV: the consumer, the least idle time in ms, entries. Returns of those that it got how often
# they were handed out, and their fields (none where the entry was deleted).
CLAIM = """
local got = {}
for i = 3, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], 'agents', ARGV[i], ARGV[i], 1)[1]
  if held and held[3] >= tonumber(ARGV[2]) then
    local entry = redis.call('XCLAIM', KEYS[1], 'agents', ARGV[1], ARGV[2], ARGV[i])[1]
    got[#got + 1] = {ARGV[i], held[4] + 1, entry and entry[2] or {}}
  end
end
return got
"""


class Claims:
    """Refreshes one host's tasks, and takes over those of hosts that do not."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        roles: Sequence[Role],
        desk: Desk,
        outbox: Outbox,
        lease_s: float = LEASE_S,
    ) -> None:
        self._bus = bus
        self._name = name
        self._roles = roles
        self._desk = desk
        self._outbox = outbox
        self._lease_s = lease_s
        self._beat_s = lease_s / BEATS
        self._suspects: set[Key] = set()
        self._clocks: tuple[float, float] | None = None

    async def run(self) -> None:
        """Beat and look around, for ever."""
        wait_s = self._beat_s
        self._desk.refreshed = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self._refresh()
                await self._look()
                wait_s = self._beat_s
            except (RedisError, OSError) as error:
                self._suspects.clear()
                wait_s = min(self._beat_s, RETRY_S)
                logger.warning("claims_failed", host=self._name, error=str(error)[:200])

    async def _refresh(self) -> None:
        """What is in hand is not idle; what is no longer this host's is dropped."""
        now = asyncio.get_running_loop().time()
        was_away = now - self._desk.refreshed > self._lease_s
        owners: dict[Key, Work] = {}
        streams: dict[bytes, list[Any]] = {}
        for work in self._desk.in_hand.values():
            for (stream, entry), times in work.entries.items():
                owners[stream, entry] = work
                streams.setdefault(stream, []).extend((entry, times))
        for stream, entry in self._outbox.entries():
            streams.setdefault(stream, []).extend((entry, 0))
        calls = [
            (b"EVAL", REFRESH, 1, stream, self._name, *some[at : at + 2 * REFRESH_ENTRIES_MAX])
            for stream, some in streams.items()
            for at in range(0, len(some), 2 * REFRESH_ENTRIES_MAX)
        ]
        for call, lost in zip(calls, await self._call(calls), strict=True):
            for entry, is_anothers in lost:
                key = (call[3], entry)
                # What is nobody's was finished by another, or went with all of Redis.
                if key in owners and (is_anothers or was_away):
                    self._desk.lose(owners[key], key)
        self._desk.refreshed = now

    async def _look(self) -> None:
        """Take what was idle at the last look and still is, as far as there is room."""
        roles = [role for role in self._roles if role.free]
        if not await self._clocks_agree():
            self._suspects.clear()
            return
        suspects: set[Key] = set()
        for role, idle in await self._idle(roles):
            known = [entry for entry in idle if (role.stream, entry) in self._suspects]
            suspects.update((role.stream, entry) for entry in idle)
            await self._take(role, known[: role.free])
        self._suspects = suspects

    async def _clocks_agree(self) -> bool:
        """Whether Redis's clock has gone as ours since the last look."""
        ours = asyncio.get_running_loop().time()
        [(seconds, micros)] = await self._call([(b"TIME",)])
        before, self._clocks = self._clocks, (ours, int(seconds) + int(micros) / 1e6)
        if before is None:
            return False
        difference = (self._clocks[1] - before[1]) - (ours - before[0])
        return abs(difference) < self._beat_s

    async def _idle(self, roles: Sequence[Role]) -> list[tuple[Role, list[bytes]]]:
        """What has missed a beat, by role; more of a stream is looked at while pages are full."""
        idle_ms = int(self._lease_s * 1000 * 2 / BEATS)
        ask = (GROUP, "IDLE", idle_ms)
        found: dict[Role, list[bytes]] = {}
        after = dict.fromkeys(roles, b"-")
        for _ in range(LOOK_PAGES_MAX):
            calls = [
                (b"XPENDING", role.stream, *ask, start, b"+", PAGE_ENTRIES_MAX)
                for role, start in after.items()
            ]
            for role, page in zip(list(after), await self._call(calls), strict=True):
                found.setdefault(role, []).extend(row[0] for row in page)
                if len(page) < PAGE_ENTRIES_MAX:
                    del after[role]
                else:
                    after[role] = b"(" + page[-1][0]
            if not after:
                break
        return list(found.items())

    async def _take(self, role: Role, entries: Sequence[bytes]) -> None:
        """Claim entries and do their tasks; another host may have been quicker."""
        idle_ms = int(self._lease_s * 1000)
        for at in range(0, len(entries), CLAIM_ENTRIES_MAX):
            since = asyncio.get_running_loop().time()
            some = entries[at : at + CLAIM_ENTRIES_MAX]
            call = (b"EVAL", CLAIM, 1, role.stream, self._name, idle_ms, *some)
            [got] = await self._call([call])
            for entry, times, fields in got:
                self._desk.counts.taken += 1
                self._desk.take(role, entry, message_of(fields), times, since)

    async def _call(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """All in one round trip, with Redis's own replies (a name in bytes is not converted)."""
        async with self._bus.redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call)
            return list(await pipe.execute())
