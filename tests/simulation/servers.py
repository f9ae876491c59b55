"""The two servers of a simulation: shared by all processes, and reached through faulty wires.

A call takes a little time before and after its effect. In between it may be lost, or its answer, as
on a network; and the process that calls may die or fall asleep at that very moment. Every such
moment has a name: what is called, by whom, before or after its effect.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.bus import BusUnavailable
from streams.log import CommitUnknown, LogUnavailable
from streams.logs.memory import MemoryLog
from tests.fake_bus import FakeBus
from tests.simulation.loop import PROCESS, SimLoop

LATENCY_S = 0.004
LOST = 0.01  # of all calls, while faults are on
COMMITS_LOST = 0.05  # of commits: their way there, and their answers
CUTS = 0.05  # of mirrorings: only the first part arrives
CUT_EVENTS_MAX = 4

READS = frozenset({"read", "cursors", "load", "recent", "definitions", "history", "commits"})


class Redis(FakeBus):
    """A Redis in memory whose blocking reads block, in virtual time."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self.loop = loop
        self._arrived = asyncio.Event()
        self._flushed_at = 0

    def _tick(self) -> None:
        self.now_ms = max(self.now_ms, 1_000 + int(self.loop.now * 1_000) - self._flushed_at)

    def turn_back(self) -> None:
        """It begins anew without data, by a clock that is behind."""
        self.flush(1_000)
        self._flushed_at = int(self.loop.now * 1_000)
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    def add(self, key: str, message: bytes) -> str:
        """XADD, by this server's clock."""
        self._tick()
        new = super().add(key, message)
        self._wake()
        return new

    async def mirror(self, shares: Sequence[tuple[int, int, Sequence[bytes]]]) -> list[list[int]]:
        """As the script does."""
        told = await super().mirror(shares)
        self._wake()
        return told

    async def read(
        self, after: Mapping[str, str], count: int, block_ms: int = 0
    ) -> dict[str, list[tuple[str, bytes]]]:
        """Entries after the ids; waits for the first."""
        until = self.loop.now + block_ms / 1_000
        while True:
            arrived = self._arrived
            if found := await super().read(after, count):
                return found
            left = until - self.loop.now
            if left <= 0:
                return {}
            try:
                await asyncio.wait_for(arrived.wait(), left)
            except TimeoutError:
                return {}


@dataclass
class Weather:
    """What the wires do at the moment, and the moments at which somebody is to be struck."""

    chance: random.Random
    on: bool = True
    log_away: bool = False
    bus_away: bool = False
    strike: Callable[[str, str], bool] = lambda process, moment: False
    """Told (process, moment); true if the process has died of it."""
    seen: Counter[str] = field(default_factory=Counter)


class Wire:
    """A server as one process reaches it in one role."""

    def __init__(self, server: Any, weather: Weather, role: str, failure: type[Exception]) -> None:
        self._server = server
        self._weather = weather
        self._role = role
        self._failure = failure

    async def _call(self, name: str, *arguments: Any) -> Any:
        await self._hop(name)
        await self._moment(f"before {name}")
        commits = name == "append" and self._is_log
        if commits and self._chance(COMMITS_LOST):
            self._weather.seen["commit unknown, lost"] += 1
            raise CommitUnknown("the commit was lost on its way")
        if name == "mirror" and arguments[0] and self._chance(CUTS):
            arguments = (_cut(arguments[0], self._weather.chance),)
            await self._server.mirror(*arguments)
            await self._moment("in the middle of mirror")
            raise BusUnavailable("cut off in the middle")
        answer = await getattr(self._server, name)(*arguments)
        await self._moment(f"after {name}")
        if self._chance(COMMITS_LOST if commits else LOST):
            self._weather.seen[f"answer of {name} lost"] += 1
            if commits:
                self._weather.seen["commit unknown, done"] += 1
                raise CommitUnknown("the answer was lost")
            if not self._is_log or name in READS:
                raise self._failure("the answer was lost")
        await self._hop(name, away=False)
        return answer

    @property
    def _is_log(self) -> bool:
        return self._failure is LogUnavailable

    def _chance(self, share: float) -> bool:
        return self._weather.on and self._weather.chance.random() < share

    async def _hop(self, name: str, away: bool = True) -> None:
        await asyncio.sleep(self._weather.chance.random() * LATENCY_S)
        is_away = self._weather.log_away if self._is_log else self._weather.bus_away
        if away and (is_away or self._chance(LOST)):
            self._weather.seen["log away" if self._is_log else "bus away"] += 1
            await asyncio.sleep(self._weather.chance.random() * 0.2)
            raise self._failure(f"{name}: nobody answers")

    async def _moment(self, what: str) -> None:
        moment = f"{self._role}: {what}"
        self._weather.seen[f"at {moment}"] += 1
        if self._weather.strike(PROCESS.get(), moment):
            await asyncio.sleep(0)  # from which the dead do not come back, and sleepers late

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ("open", "close", "partitions"):
            return getattr(self._server, name)  # type: ignore[no-any-return]

        async def call(*arguments: Any, **named: Any) -> Any:
            if named:
                arguments = (*arguments, *named.values())
            return await self._call(name, *arguments)

        return call


class LogWire(Wire):
    """The log as one process reaches it."""

    def __init__(self, log: MemoryLog, weather: Weather, role: str) -> None:
        super().__init__(log, weather, role, LogUnavailable)


class BusWire(Wire):
    """Redis as one process reaches it."""

    def __init__(self, redis: Redis, weather: Weather, role: str) -> None:
        super().__init__(redis, weather, role, BusUnavailable)

    async def scan(self, key: str, page: int = 1_000) -> Any:
        """Every entry, oldest first."""
        await self._hop("scan")
        async for entry in self._server.scan(key, page):
            yield entry


def _cut(shares: Sequence[Any], chance: random.Random) -> list[Any]:
    """The first part of what was to be mirrored."""
    partition, first, messages = chance.choice(shares)
    return [(partition, first, messages[: chance.randint(1, min(CUT_EVENTS_MAX, len(messages)))])]
