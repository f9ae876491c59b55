"""Redis Streams in memory, as `streams.bus.Bus` promises them; with what can happen to a Redis."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from streams.bus import BusUnavailable, id_parts
from streams.partition import events_key

Id = tuple[int, int]


class FakeBus:
    """Keeps streams in lists; `away` refuses every call, `flush` is a restart without data."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.now_ms = now_ms
        self.life = 1
        self.away = False
        self.calls = 0
        self.gate: asyncio.Event | None = None
        """While it is there, the next call to `mirror` waits for it."""
        self.published: list[tuple[str, bytes]] = []
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self._streams: dict[str, list[tuple[Id, bytes]]] = defaultdict(list)
        self._last: dict[str, Id] = defaultdict(lambda: (0, 0))

    # What happens to it

    def flush(self, now_ms: int | None = None) -> None:
        """Another life of the server begins, with nothing in it, perhaps by another clock."""
        self._streams.clear()
        self.hashes.clear()
        self._last.clear()
        self.life += 1
        self.now_ms = self.now_ms + 1_000 if now_ms is None else now_ms

    def lose(self, key: str, ids: Sequence[str] | None = None) -> None:
        """Entries are lost, all or some; their ids are not given again."""
        lost = None if ids is None else {id_parts(one) for one in ids}
        self._streams[key] = [
            e for e in self._streams[key] if lost is not None and e[0] not in lost
        ]

    def messages(self, key: str) -> list[bytes]:
        """What a stream holds."""
        return [message for _, message in self._streams[key]]

    def ids(self, key: str) -> list[str]:
        """The ids of a stream's entries."""
        return [_text(one) for one, _ in self._streams[key]]

    # The promise

    async def open(self) -> None:
        """It never evicts."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def mirror(self, shares: Sequence[tuple[int, int, Sequence[bytes]]]) -> list[list[int]]:
        """As the script: what is there stays, another history is begun afresh."""
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate.wait()
        await self._answer()
        told = []
        for partition, first, messages in shares:
            key = events_key(partition)
            last, afresh = self._last[key][0], 0
            if last >= first:
                same = min(last, first + len(messages) - 1)
                there = dict(self._streams[key]).get((same, 0))
                if there is not None and there != messages[same - first]:
                    self._streams[key], last, afresh = [], 0, 1
            if 0 < last < first - 1:
                self._streams[key], last, afresh = [], 0, 1
            start = max(first, last + 1)
            for position in range(start, first + len(messages)):
                self._streams[key].append(((position, 0), messages[position - first]))
                self._last[key] = (position, 0)
            told.append([max(0, first + len(messages) - start), start - first, afresh])
        return told

    async def append(self, messages: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """Ids by this server's clock, never smaller than the last."""
        await self._answer()
        return {
            key: [self.add(key, one).encode() for one in some] for key, some in messages.items()
        }

    async def publish(self, messages: Mapping[str, Sequence[bytes]]) -> None:
        """Nobody listens; what was said is kept."""
        await self._answer()
        self.published += [(channel, one) for channel, some in messages.items() for one in some]

    def add(self, key: str, message: bytes) -> str:
        """XADD."""
        last = self._last[key]
        new = (self.now_ms, 0) if self.now_ms > last[0] else (last[0], last[1] + 1)
        self._streams[key].append((new, message))
        self._last[key] = new
        return _text(new)

    async def read(
        self, after: Mapping[str, str], count: int, block_ms: int = 0
    ) -> dict[str, list[tuple[str, bytes]]]:
        """Entries after the ids; it does not wait."""
        await self._answer()
        found = {}
        for key, at in after.items():
            some = [(_text(i), m) for i, m in self._streams[key] if i > id_parts(at)][:count]
            if some:
                found[key] = some
        return found

    async def scan(self, key: str, page: int = 1_000) -> AsyncIterator[tuple[str, bytes]]:
        """Every entry, oldest first."""
        await self._answer()
        for one, message in list(self._streams[key]):
            yield _text(one), message

    async def hash(self, key: str) -> dict[bytes, bytes]:
        """HGETALL."""
        await self._answer()
        return dict(self.hashes.get(key, {}))

    async def trim(self, before: Mapping[str, str], exact: bool = False) -> None:
        """XTRIM MINID."""
        await self._answer()
        for key, least in before.items():
            self._streams[key] = [e for e in self._streams[key] if e[0] >= id_parts(least)]

    async def forget(self, key: str) -> None:
        """DEL."""
        await self._answer()
        self.delete(key)

    def delete(self, key: str) -> None:
        """The stream is gone, with the ids that it has given."""
        self._streams.pop(key, None)
        self._last.pop(key, None)

    async def incarnation(self) -> str:
        """Which life this is."""
        await self._answer()
        return f"life {self.life}"

    async def last_id(self, key: str) -> str:
        """The newest id that was given."""
        await self._answer()
        return _text(self._last[key])

    async def last_ids(self, keys: Sequence[str]) -> list[str]:
        """The newest ids that were given."""
        await self._answer()
        return [_text(self._last[key]) for key in keys]

    async def _answer(self) -> Any:
        self.calls += 1
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away")


def _text(one: Id) -> str:
    return f"{one[0]}-{one[1]}"
