"""Each guard of the engine taken out, one at a time: what protects us must be seen to (F24).

Guards mask each other: without the epoch, the head still refuses most of what a zombie writes. So a
guard is taken out alone, where the checker can see it, or together with the one that masks it; and
each counts what it alone has refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest

from processors import decide
from processors.mirroring import Mirroring
from processors.partition_state import PartitionState
from streams.log import WRITER, Share
from streams.logs.memory import MemoryLog
from tests.simulation.world import PARTITIONS, World, simulate

SEEDS = 60
SEEDS_MAX = 400  # until one finds something: without the epoch about one of thirty does


class Unguarded(MemoryLog):
    """A log whose commit leaves out guards, and counts what each of them would have refused."""

    def __init__(self, epoch: bool = True, head: bool = True) -> None:
        super().__init__(PARTITIONS)
        self.epoch, self.head = epoch, head
        self.refused: Counter[str] = Counter()

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        """As it is promised, but for the guards that are out."""
        allowed = []
        for share in shares:
            cursor = self._cursors[WRITER, share.partition]
            old = cursor.epoch != share.epoch or cursor.owner is None
            behind = cursor.position != share.head
            self.refused["epoch"] += old
            self.refused["head"] += behind
            self.refused["epoch alone"] += old and not behind
            self.refused["head alone"] += behind and not old
            if not (old and self.epoch) and not (behind and self.head):
                allowed.append(share)
        done = set()
        for share in allowed:
            cursor = self._cursors[WRITER, share.partition]
            kept = cursor.epoch, cursor.owner, cursor.position
            cursor.epoch, cursor.owner, cursor.position = share.epoch, "whoever", share.head
            done |= await super().append([share], time)
            cursor.epoch, cursor.owner = kept[:2]
        return done


def found(change: Callable[[World], None]) -> str:
    """What the checker says about the first seed that finds something; "" where none does."""
    for seed in range(SEEDS_MAX):
        try:
            result = simulate(seed, change)
        except Exception as error:  # a loop that stumbles has noticed as well
            return repr(error)
        if result.violations:
            return result.violations[0]
    return ""


def without(**guards: bool) -> Callable[[World], None]:
    """A world whose log leaves guards out."""

    def change(world: World) -> None:
        world.log = Unguarded(**guards)

    return change


def test_the_guards_of_a_commit_each_refuse_something():
    refused: Counter[str] = Counter()

    def change(world: World) -> None:
        world.log = Unguarded()
        logs.append(world.log)

    logs: list[Unguarded] = []
    for seed in range(SEEDS):
        assert not simulate(seed, change).violations
    for log in logs:
        refused += log.refused
    assert refused["epoch"] > 0
    assert refused["head"] > 0
    assert refused["epoch alone"] > 0, "the head masks the epoch in all of these runs"


def test_without_the_epoch_a_zombie_is_found():
    assert found(without(epoch=False))[:2] in ("I5", "I6")


def test_without_epoch_and_head_the_log_is_torn():
    assert found(without(epoch=False, head=False))[:2] in ("I1", "I2", "I4", "I5", "I6")


def test_without_the_memory_of_commands_a_repeat_is_found(monkeypatch: pytest.MonkeyPatch):
    async def nothing(*_: Any) -> None:
        """What is not remembered is not looked up either."""

    monkeypatch.setattr(PartitionState, "remember", lambda *_: None)
    monkeypatch.setattr(decide, "settle_outcomes", nothing)
    assert found(lambda world: None).startswith("I4")


def test_without_catching_up_the_mirror_has_a_hole(monkeypatch: pytest.MonkeyPatch):
    async def nothing(self: Mirroring, part: Any, head: int | None = None) -> None:
        part.mirrored = part.cursor.position if head is None else head

    monkeypatch.setattr(Mirroring, "catch_up", nothing)
    assert found(lambda world: None).startswith("I11")
