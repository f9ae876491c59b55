"""The bare loop: the engine's reads, commits and mirror calls with nothing in between.

It writes the very bytes that the engine wrote in an earlier run on the same state, so it decodes,
decides and encodes nothing, knows no repeats, and runs without Faust; like the engine it reads the
next batch and sends the last one to the mirror while a batch commits.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from processors.bench.backlog import Backlog, command_id
from processors.command_feed import BATCH_ENTRIES_MAX, BLOCK_MS
from processors.command_processor import ENTRIES_MAX
from streams.bus import Bus
from streams.log import READ_EVENTS_MAX, WRITER, Cursor, Log, Share
from streams.partition import commands_key

OWNER = "bare loop"


@dataclass(slots=True)
class Part:
    """What the loop appends to one partition: the events from `base` on, ready to be sent."""

    base: int
    types: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    commands: list[tuple[str, int]] = field(default_factory=list)


Recording = dict[int, Part]


async def heads(log: Log) -> dict[int, int]:
    """The last position of each partition."""
    return {cursor.partition: cursor.position for cursor in await log.cursors(WRITER)}


async def record(log: Log, backlog: Backlog, before: dict[int, int]) -> Recording:
    """What the engine appended behind these heads when it drained the backlog."""
    found: Recording = {}
    for partition, base in before.items():
        part = found[partition] = Part(base)
        while page := await log.read(partition, base + len(part.messages), READ_EVENTS_MAX):
            part.types += [event.type for event in page]
            part.subjects += [event.subject for event in page]
            part.messages += [event.message for event in page]
        commands = backlog.messages.get(partition, [])
        share = len(part.messages) // len(commands) if commands else 0
        part.commands = [(command_id(raw), share) for raw in commands]
    return found


@dataclass(slots=True)
class BareLoop:
    """Drains a backlog of one shape; `drain` may be called once."""

    log: Log
    bus: Bus
    recording: Recording
    events_a_command: int
    cursors: dict[int, Cursor] = field(default_factory=dict)
    _chains: dict[int, bytes] = field(default_factory=dict)
    _done: dict[int, int] = field(default_factory=dict)
    _commit: asyncio.Future[None] | None = None
    _mirror: asyncio.Future[list[list[int]]] | None = None

    async def open(self) -> None:
        """Take the partitions of the recording."""
        ours = [c for c in await self.log.cursors(WRITER) if c.partition in self.recording]
        for cursor in await self.log.take(ours, OWNER):
            self.cursors[cursor.partition] = cursor
            self._chains[cursor.partition] = cursor.hash
            self._done[cursor.partition] = 0
            assert cursor.position == self.recording[cursor.partition].base

    async def drain(self, commands: int) -> None:
        """Until all commands are committed and mirrored."""
        keys = {commands_key(p): p for p in self.cursors}
        offsets = {key: self.cursors[p].stream_offset for key, p in keys.items()}
        busy = len(offsets)
        while commands:
            count = min(ENTRIES_MAX, BATCH_ENTRIES_MAX // busy or 1)  # as the engine's feed reads
            streams = await self.bus.read(offsets, count, BLOCK_MS)
            busy = len(streams) or busy
            shares = []
            for key, entries in streams.items():
                offsets[key] = entries[-1][0]
                commands -= len(entries)
                shares.append(self._share(keys[key], len(entries), offsets[key]))
            await _settled(self._commit)
            self._commit = asyncio.ensure_future(self._append(shares))
        await _settled(self._commit)
        await _settled(self._mirror)

    def _share(self, partition: int, commands: int, offset: str) -> Share:
        cursor, part, at = self.cursors[partition], self.recording[partition], self._done[partition]
        self._done[partition] = at + commands
        cursor.commits += 1
        first, last = at * self.events_a_command, (at + commands) * self.events_a_command
        return Share(
            partition,
            cursor.epoch,
            part.base + first,
            cursor.commits,
            b"",
            part.types[first:last],
            part.subjects[first:last],
            part.messages[first:last],
            list(part.commands[at : at + commands]),
            offset,
            cursor.incarnation,
        )

    async def _append(self, shares: list[Share]) -> None:
        for share in shares:
            share.previous = self._chains[share.partition]
        committed = await self.log.append(shares, datetime.now(UTC))
        assert len(committed) == len(shares)
        for share in shares:
            self._chains[share.partition] = share.hash
        await _settled(self._mirror)
        calls = [(share.partition, share.head + 1, share.messages) for share in shares]
        self._mirror = asyncio.ensure_future(self.bus.mirror(calls))


async def _settled(work: asyncio.Future[Any] | None) -> None:
    if work is not None:
        await work
