"""Which partitions a consumer holds here, kept by beating and taken over when another's beat stops.

No clock is compared with another machine's: a challenger that has seen the same (epoch, beat) for
the lease time on its own monotonic clock raises the epoch by compare-and-set. Live workers share
the partitions: each takes what is free and its own by `streams.members`, and gives up the others'.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf

import structlog

from streams.ending import end
from streams.log import Cursor, Log, LogUnavailable
from streams.members import Members

LEASE_S_DEFAULT = 5.0
BEATS_A_LEASE = 3  # two beats may be lost before the third is too late
LOOK_S = 0.25  # between two looks whether somebody has handed a partition over
GIVEN_AT_ONCE = 4  # partitions on their way to other workers, or a quarter where there are more
STUBBORN_LEASES = 12  # so long nothing is offered again to a member that did not take it
LEAVE_S = 1.0  # for the farewell to a database that may be away; then the leases run out

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class LeaseCounters:
    """What happened to these leases since the start; the names are the metrics'."""

    taken: int = 0
    taken_over: int = 0
    """Of those, the ones whose owner had not let go."""
    given: int = 0
    lost: int = 0
    rounds_missed: int = 0


class Leases:
    """One consumer's leases in this process; `held` maps a partition to its cursor.

    What is in `leaving` belongs to another live worker: whoever works on it finishes what is in
    hand and calls `hand_over`.
    """

    def __init__(
        self,
        log: Log,
        consumer: str,
        owner: str,
        lease_s: float = LEASE_S_DEFAULT,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.log = log
        self.consumer = consumer
        self.owner = owner
        self.lease_s = lease_s
        self.held: dict[int, Cursor] = {}
        self.leaving: set[int] = set()
        self.members = Members(log, consumer, owner, lease_s)
        self.counters = LeaseCounters()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._seen: dict[int, tuple[object, float]] = {}
        self._stubborn: dict[int, tuple[str, float]] = {}
        self._beats: dict[int, tuple[int, int]] = {}
        self._lost: set[int] = set()  # and nobody has looked at `held` since
        self._looked: float | None = None  # when a round last succeeded
        self._expiry = inf  # when the next of those that do not beat has waited long enough
        self._missed = False  # a round has failed since
        self._changed = asyncio.Event()
        self._rounding = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take what is free and keep beating."""
        await self.round()
        self._task = asyncio.create_task(self._beat_for_ever(), name=f"leases {self.consumer}")

    async def stop(self) -> None:
        """Hand everything back at once, and be no member any more."""
        with contextlib.suppress(TimeoutError):  # or what is just being taken would be left behind
            async with asyncio.timeout(LEAVE_S):
                await self._rounding.acquire()
        await end(self._task)
        self._rounding = asyncio.Lock()
        with contextlib.suppress(LogUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self.log.leave(self.consumer, self.owner, self._epochs())
        self.held.clear()
        self.leaving.clear()
        self._looked = None
        self._changed.set()

    async def changed(self) -> None:
        """Wait until partitions were taken or lost, or are to leave; look before any other wait."""
        await self._changed.wait()
        self._changed.clear()
        self._lost.clear()

    @property
    def beating(self) -> bool:
        """Whether a round has succeeded within the lease time."""
        return self._looked is not None and self._clock() - self._looked < self.lease_s

    def forget(self, partition: int) -> None:
        """A write was refused: the partition belongs to somebody else now."""
        self.leaving.discard(partition)
        if self.held.pop(partition, None) is not None:
            logger.warning("lease_lost", consumer=self.consumer, partition=partition)
            self.counters.lost += 1
            self._lost.add(partition)
            self._changed.set()

    async def hand_over(self, partitions: Collection[int]) -> None:
        """Release partitions that nobody here works on any more."""
        mine = {p: self.held.pop(p).epoch for p in partitions if p in self.held}
        self.leaving.difference_update(partitions)
        self.counters.given += len(mine)
        if mine:
            with contextlib.suppress(LogUnavailable):  # then these leases run out
                await self.log.release(self.consumer, mine)

    async def retake(self, partition: int) -> Cursor | None:
        """Raise the epoch of our own lease, which ends whatever of ours is still on its way.

        Returns the fresh cursor, or None where the partition is no longer ours.
        """
        mine = self.held.get(partition)
        rows = await self.log.cursors(self.consumer)
        now = next(row for row in rows if row.partition == partition)
        if mine is None or now.owner != self.owner or now.epoch != mine.epoch:
            self.forget(partition)
            return None
        # A beat of our own may come between; it is harmless to try again.
        for _ in range(BEATS_A_LEASE):
            if taken := await self.log.take([now], self.owner):
                self.held[partition] = taken[0]
                return taken[0]
            rows = await self.log.cursors(self.consumer)
            now = next(row for row in rows if row.partition == partition)
            if now.owner != self.owner:
                break
        self.forget(partition)
        return None

    def _epochs(self) -> dict[int, int]:
        return {partition: cursor.epoch for partition, cursor in self.held.items()}

    async def _beat_for_ever(self) -> None:
        between_s = self.lease_s / BEATS_A_LEASE
        due = self._clock() + between_s
        while True:
            due = min(due, self._expiry)
            await asyncio.sleep(max(0.0, min(LOOK_S, due - self._clock())))
            try:
                if self._clock() >= due or await self.log.free(self.consumer):
                    due = self._clock() + between_s
                    async with self._rounding:
                        await self.round()
            except LogUnavailable as error:
                self._missed, self._expiry = True, inf
                due = min(due, self._clock() + LOOK_S)
                self.counters.rounds_missed += 1
                logger.warning("leases_unavailable", consumer=self.consumer, error=str(error))
            except Exception:  # a mistake in one round must not end all beats, and all leases
                self.counters.rounds_missed += 1
                logger.exception("leases_round_failed", consumer=self.consumer)

    async def round(self) -> None:
        """Beat for what we hold, look at the others, take what is free or has stopped beating."""
        before = self._epochs()
        ours = await self.log.beat(self.consumer, before) if before else set()
        for partition, epoch in before.items():
            cursor = self.held.get(partition)
            if partition not in ours and cursor is not None and cursor.epoch == epoch:
                self.forget(partition)
        now = self._clock()
        # While the log was away nobody could beat: who waits for a beat to stop counts on after it.
        missed_s = now - self._looked if self._missed and self._looked is not None else 0.0
        await self.members.meet(now, missed_s)
        cursors = await self.log.cursors(self.consumer)
        self._notice_older_log(cursors)
        self._looked, self._missed = now, False
        self._expiry = self.members.expiry(now)
        if free := [cursor for cursor in cursors if self._may_take(cursor, now, missed_s)]:
            await self._take(free)
        self._give(now)

    def _notice_older_log(self, cursors: list[Cursor]) -> None:
        """Our own beat went back: the database is an older copy, and our memory is ahead of it.

        So after a failover to a standby that lagged. What we hold is dropped and read again.
        """
        for cursor in cursors:
            partition, now = cursor.partition, (cursor.epoch, cursor.beat)
            held = self.held.get(partition)
            if held is None or held.epoch != cursor.epoch:
                continue
            epoch, beat = self._beats.get(partition, now)
            self._beats[partition] = now
            if epoch == cursor.epoch and cursor.beat < beat:
                logger.error("log_went_back", consumer=self.consumer, partition=partition)
                self.forget(partition)

    async def _take(self, free: list[Cursor]) -> None:
        owned = {cursor.partition for cursor in free if cursor.owner is not None}
        for cursor in await self.log.take(free, self.owner):
            self.held[cursor.partition] = cursor
            self._seen.pop(cursor.partition, None)
            self.counters.taken += 1
            self.counters.taken_over += cursor.partition in owned
        self._changed.set()

    def _may_take(self, cursor: Cursor, now: float, missed_s: float) -> bool:
        """Whether a partition has no live owner, and is ours or not taken by whom it belongs to."""
        # What was lost comes back only after it was seen to be lost: whoever works on it must
        # drop what it has, since others have written meanwhile.
        partition = cursor.partition
        if partition in self.held or partition in self._lost:
            return False
        is_now = (cursor.owner, cursor.epoch, cursor.beat)
        was, since = self._seen.get(partition, (None, now))
        since = since + missed_s if was == is_now else now
        self._seen[partition] = (is_now, since)
        steps = (since + self.lease_s, since + 2 * self.lease_s)
        self._expiry = min([self._expiry, *(at for at in steps if at > now)])
        waits_s, dead = now - since, None
        if cursor.owner is not None:
            waits_s -= self.lease_s
            dead = cursor.owner
        if waits_s < 0:
            return False
        rightful = self.members.rightful(partition, dead if dead != self.owner else None)
        if rightful != self.owner and waits_s >= self.lease_s:
            self._stubborn[partition] = (rightful, now + STUBBORN_LEASES * self.lease_s)
            return True
        return rightful == self.owner

    def _give(self, now: float) -> None:
        """Mark what belongs to others as leaving: some at a time, so that most work goes on."""
        others = []
        for partition in sorted(self.held.keys() - self.leaving):
            rightful = self.members.rightful(partition)
            stubborn, until = self._stubborn.get(partition, ("", 0.0))
            if rightful != self.owner and not (rightful == stubborn and now < until):
                others.append(partition)
        room = max(GIVEN_AT_ONCE, len(self.held) // 4) - len(self.leaving)
        if others and room > 0:
            self.leaving.update(others[:room])
            self._changed.set()
