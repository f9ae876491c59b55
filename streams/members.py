"""Which workers share a consumer's partitions, and which of them each partition belongs to.

Every worker ranks all of them for a partition by a stable hash (rendezvous hashing), so all agree
without a word, and one that comes or goes moves only its own share.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import inf

from streams.log import Log


def weight(member: str, partition: int) -> bytes:
    """How much a partition wants this member; the same in every process and release.

    The same for every consumer, too: what one decides, its neighbour in the process follows.
    """
    return blake2b(f"{partition}/{member}".encode(), digest_size=8).digest()


class Members:
    """Who lives, as one worker sees it: whose beat has changed within the lease time."""

    def __init__(self, log: Log, consumer: str, me: str, lease_s: float) -> None:
        self.log = log
        self.consumer = consumer
        self.me = me
        self.lease_s = lease_s
        self.alive: frozenset[str] = frozenset({me})
        self._seen: dict[str, tuple[int, float]] = {}
        self._ranks: dict[int, list[str]] = {}

    async def meet(self, now: float, missed_s: float = 0.0) -> None:
        """Beat, look at the others, and remove the rows of those that have stopped beating.

        `missed_s` is how long nobody could look: no beat is missed in that time.
        """
        beats = dict(await self.log.meet(self.consumer, self.me))
        beats.pop(self.me, None)
        self._seen = {member: self._since(member, beats, now, missed_s) for member in beats}
        dead = {m: beat for m, (beat, since) in self._seen.items() if now - since >= self.lease_s}
        alive = frozenset({self.me} | self._seen.keys() - dead.keys())
        if alive != self.alive:
            self.alive = alive
            self._ranks.clear()
        if dead:  # one that was only slow comes back with its next beat
            await self.log.dismiss(self.consumer, dead)

    def expiry(self, now: float) -> float:
        """When the next one counts as dead if no beat of it comes."""
        ends = (since + self.lease_s for _, since in self._seen.values())
        return min((at for at in ends if at > now), default=inf)

    def _since(
        self, member: str, beats: Mapping[str, int], now: float, missed_s: float
    ) -> tuple[int, float]:
        beat, since = self._seen.get(member, (None, now))
        return (beat, since + missed_s) if beat == beats[member] else (beats[member], now)

    def rightful(self, partition: int, but: str | None = None) -> str:
        """The live member that a partition belongs to, passing over one."""
        ranked = self._ranks.get(partition)
        if ranked is None:
            ranked = sorted(self.alive, key=lambda m: weight(m, partition), reverse=True)
            self._ranks[partition] = ranked
        return next((member for member in ranked if member != but), self.me)
