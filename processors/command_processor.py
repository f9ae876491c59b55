"""The command processor: read a batch, decide it, commit it, mirror it, answer.

One batch covers all partitions that this process owns and becomes one commit. While it is being
committed the next one is decided, on the states that the first will have made; if the commit does
not come about, everything that was built on it is dropped and read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from processors import partition_loading as state
from processors.access.admission import Admission
from processors.access.quotas import Quotas
from processors.blueprints import Blueprints
from processors.command_counters import Counters
from processors.decide import decide_batch
from processors.decided import Decided, refused_content
from processors.hand_over import HandOver
from processors.mirroring import Mirroring
from processors.partition_state import PartitionState, open_partition
from processors.sealing import seal_letters
from processors.vocabulary import Vocabulary
from streams.bus import Bus, BusUnavailable, id_parts
from streams.leases import Leases
from streams.log import CommitUnknown, Log, LogUnavailable, Share, Unacceptable
from streams.partition import commands_key
from streams.sealing.keyring import Keyring

ENTRIES_MAX = 1_000  # of one partition in one batch: a commit stays under some 50 ms
RETRY_S = 0.2  # after the log did not answer

logger = structlog.get_logger(__name__)

Entries = Mapping[int, tuple[PartitionState, Sequence[tuple[str, bytes]]]]
"""What was read for each partition, and for which taking of it: what was read for a state that has
been dropped since comes again, and must not be decided out of order."""

Batches = list[tuple[PartitionState, Sequence[tuple[str, bytes]]]]


@dataclass(slots=True)
class CommandProcessor:
    """Decides for the partitions whose leases this process holds."""

    log: Log
    bus: Bus
    leases: Leases
    clock: Callable[[], datetime]
    partitions: int
    names: Vocabulary = field(default_factory=Vocabulary)
    keys: Keyring | None = None
    """Seals what comes in clear; None seals nothing."""
    admission: Admission | None = None
    """Whom it asks whether a command may be; None admits all of them as they are."""
    quotas: Quotas | None = None
    """What each tenant may have; None bounds nobody."""
    counters: Counters = field(default_factory=Counters)
    parts: dict[int, PartitionState] = field(default_factory=dict)
    careful: dict[int, int] = field(default_factory=dict)
    """How many entries of a partition may be tried at once, after the log refused some."""
    hand_over: HandOver | None = None
    """For whoever follows the log in this process."""
    crashes: dict[int, dict[str, int]] = field(default_factory=dict)
    """How often commands of a partition broke its state, over its taking again and again."""
    plans: Blueprints = field(init=False)
    mirroring: Mirroring = field(init=False)
    _under_way: asyncio.Task[None] | None = None
    _saving: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.plans = Blueprints(self.log)
        self.mirroring = Mirroring(self.log, self.bus)

    async def open(self, partition: int) -> None:
        """Make ready to decide for a partition: its state, its offset, and a whole mirror."""
        cursor = self.leases.held[partition]
        part = await open_partition(self.log, cursor)
        if self.quotas is not None:
            self.quotas.forget(partition, cursor.position)
        part.crashes = self.crashes.setdefault(partition, {})
        part.offset, part.cursor.incarnation = await self._offset(part)
        part.cursor.stream_offset = part.offset  # of this Redis, nothing more has been passed
        await self.mirroring.catch_up(part)
        self.parts[partition] = part

    def close(self, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        if part := self.parts.pop(partition, None):
            part.valid = False

    async def leave(self, partitions: Collection[int]) -> None:
        """Finish the commit that is under way; what was read beyond it the next owner reads."""
        for partition in partitions:
            self.close(partition)
        await self.drain()

    def is_whole(self, partition: int) -> bool:
        """Whether the partition is open and nothing of its state was dropped."""
        part = self.parts.get(partition)
        return part is not None and part.valid

    def committed(self, partition: int) -> int | None:
        """The last position of the log, as far as it is ours to say."""
        part = self.parts.get(partition)
        return part.cursor.position if part is not None and part.valid else None

    async def reopen(self, partition: int) -> bool:
        """Take a dropped partition again under a new epoch; False where somebody else has it."""
        self.close(partition)
        if await self.leases.retake(partition) is None:
            return False
        await self.open(partition)
        return True

    async def _offset(self, part: PartitionState) -> tuple[str, str]:
        """Where to read on; from the start where the stream is not the one that we had read."""
        incarnation = await self.bus.incarnation()
        newest = await self.bus.last_id(commands_key(part.partition))
        if incarnation != part.cursor.incarnation or id_parts(newest) < id_parts(part.offset):
            return "0-0", incarnation
        return part.offset, incarnation

    async def handle(self, entries: Entries) -> None:
        """Decide what was read while the commit before is under way, in commits of bounded size.

        Returns when the last one's commit has begun.
        """
        left = list(entries.values())
        while left:
            try:
                await self._save_when_due()
                decided = await self._decide(left)
            except LogUnavailable as error:
                logger.warning("decisions_wait", error=str(error))
                for part, _ in entries.values():
                    part.valid = False
                await asyncio.sleep(RETRY_S)
                return
            left = _undecided(left, decided)
            await self.settle()
            self._under_way = asyncio.create_task(self._commit(decided), name="commit")

    async def settle(self) -> None:
        """Wait until the commit that is under way has ended, well or not."""
        commit = self._under_way
        if commit is None:
            return
        try:
            await asyncio.shield(commit)  # whoever waits may be cancelled, a commit not
        finally:  # a bug that ended it is raised once, and not at every later batch
            if commit.done() and self._under_way is commit:
                self._under_way = None

    async def drain(self) -> None:
        """Finish what is in hand: commit, mirror and answers."""
        await self.settle()
        await self.mirroring.settle()

    async def _decide(self, batches: Batches) -> list[Decided]:
        batches = [(part, entries) for part, entries in batches if part.valid]
        now = self.clock()
        decided = await decide_batch(
            self.log,
            self.names,
            self.plans,
            batches,
            now,
            self.partitions,
            self.keys,
            self.admission,
            self.quotas,
        )
        if self.quotas is not None:
            self.counters.over_quota = self.quotas.refused
        for one in decided:
            self.counters.commands += len(one.share.commands)
            self.counters.repeats += one.repeats
            self.counters.refusals += one.refusals
            self.counters.conflicts += one.conflicts
        for part, _ in batches:
            self.counters.snapshot_fallbacks += part.fallbacks
            part.fallbacks = 0
        return decided

    async def _commit(self, decided: list[Decided]) -> None:
        if self.careful:  # one partition at a time, so that it is known whose content was refused
            for one in decided:
                await self._append([one])
        else:
            await self._append(decided)

    async def _append(self, decided: list[Decided]) -> None:
        live = [one for one in decided if one.part.valid]
        if not live:
            return
        for one in live:
            one.share.previous = one.part.chain
        try:
            letters = [letter for one in live for letter in one.letters]
            await self.log.bury(await seal_letters(self.keys, letters))
            committed = await self.log.append([one.share for one in live], self.clock())
        except (CommitUnknown, LogUnavailable) as error:
            self.counters.unknown_commits += 1
            logger.warning("commit_unknown", error=str(error))
            for one in live:
                one.part.valid = False
            await asyncio.sleep(RETRY_S)
            return
        except Unacceptable as error:
            await self._isolate(live, str(error))
            return
        self.counters.commits += 1
        done = []
        for one in live:
            if one.share.partition in committed:
                self._committed(one.part, one.share)
                done.append(one)
                self.counters.events += len(one.share.messages)
                self.counters.dead_letters += len(one.letters)
                self._less_careful(one)
            else:
                self.counters.fenced += 1
                one.part.valid = False
                held = self.leases.held.get(one.share.partition)
                if held is not None and held.epoch == one.share.epoch:  # not taken again since
                    self.leases.forget(one.share.partition)
        if self.hand_over is not None:
            for one in done:
                self.hand_over.give(one.share.partition, one.share.head + 1, one.share.messages)
            self.hand_over.given()
        await self.mirroring.publish(done)

    @staticmethod
    def _committed(part: PartitionState, share: Share) -> None:
        part.chain = share.hash
        part.cursor.position = share.last
        part.unsaved += sum(map(len, share.messages))
        if share.incarnation == part.cursor.incarnation:  # else that Redis is gone
            part.cursor.stream_offset = share.stream_offset

    async def _isolate(self, live: list[Decided], reason: str) -> None:
        """The log refused the content: try smaller batches, down to the one entry at fault."""
        self.counters.refused_commits += 1
        logger.warning("commit_refused", reason=reason, entries=sum(len(o.entries) for o in live))
        if len(live) == 1 and len(live[0].entries) == 1:
            [one] = live
            entry, raw = one.entries[0]
            key = commands_key(one.share.partition)
            part = one.part
            part.valid = False  # its states ran ahead with what was refused
            skip = Share(
                part.partition,
                one.share.epoch,
                one.share.head,
                one.share.number,
                part.chain,
                stream_offset=entry,
                incarnation=one.share.incarnation,
            )
            letter, reply = refused_content(one.share, key, entry, reason, raw)
            try:
                await self.log.bury(await seal_letters(self.keys, [letter]))
                await self.log.append([skip], self.clock())
                self.counters.dead_letters += 1
                if reply:
                    await self.bus.append(reply)
            except BusUnavailable as error:  # whoever waits asks again, and is told then
                logger.warning("reply_lost", error=str(error))
            except (CommitUnknown, LogUnavailable) as error:  # it is read, and tried, once more
                self.counters.unknown_commits += 1
                logger.warning("commit_unknown", error=str(error))
            return
        for one in live:
            one.part.valid = False
            self.careful[one.share.partition] = max(1, len(one.entries) // 2)

    def _less_careful(self, one: Decided) -> None:
        limit = self.careful.get(one.share.partition)
        if limit is not None:
            if limit >= ENTRIES_MAX:
                del self.careful[one.share.partition]
            else:
                self.careful[one.share.partition] = limit * 2

    async def _save_when_due(self) -> None:
        """Save snapshots of partitions that have moved far; in the background but for the dump."""
        if self._saving is not None and not self._saving.done():
            return
        due = [part for part in self.parts.values() if part.valid and state.due(part)]
        if not due:
            return
        await self.settle()
        part = max(due, key=lambda p: (p.head - p.snapshot, p.unsaved))
        if not part.valid:
            return
        rows = await state.snapshot(self.log, part, self.names, self.plans)
        part.unsaved = 0
        self._saving = asyncio.create_task(self._save(part, part.head, rows), name="snapshot")

    async def _save(self, part: PartitionState, position: int, rows: list[Any]) -> None:
        try:
            if await self.log.save(part.cursor, position, rows):
                part.snapshot = position
                state.evict(part)
                return
        except LogUnavailable as error:
            logger.warning("snapshot_unavailable", error=str(error))
        part.valid = False  # what was marked as saved is not: read it again

    async def trim(self) -> None:
        """Drop from the command streams what is committed; a failure only leaves it for later."""
        passed = {
            commands_key(partition): one.cursor.stream_offset
            for partition, one in self.parts.items()
            if one.valid
        }
        exact = self.keys is not None  # what came in clear is sealed by now: nothing of it stays
        if exact:
            passed = {key: _after(offset) for key, offset in passed.items()}
        try:
            await self.bus.trim(passed, exact)
        except BusUnavailable as error:
            logger.warning("trim_failed", error=str(error))

    async def mend(self) -> None:
        """Mirror again what Redis has lost of partitions in which nothing happens just now."""
        idle = [one for one in self.parts.values() if one.valid and one.head == one.cursor.position]
        if idle:
            await self.mirroring.mend(idle)


def _after(entry: str) -> str:
    """The id that follows on an entry's."""
    milliseconds, number = id_parts(entry)
    return f"{milliseconds}-{number + 1}"


def _undecided(batches: Batches, decided: list[Decided]) -> Batches:
    """What did not fit into the commit, of the partitions that are still ours."""
    done = {one.share.partition: len(one.entries) for one in decided}
    left = [(part, entries[done.get(part.partition, 0) :]) for part, entries in batches]
    return [(part, entries) for part, entries in left if entries and part.valid]
