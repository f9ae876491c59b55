"""A worker as the zygote's child: the engine's own, with traps at its moments and counts told."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from processors import app
from processors.app import Worker
from processors.command_feed import CommandFeed
from processors.command_processor import CommandProcessor
from processors.process_manager import ProcessManager
from processors.projector import Projector
from processors.settings import Settings
from processors.worker import GC_ALLOCATIONS
from streams.leases import Leases
from streams.transport import running
from tests.chaos import moments
from tests.chaos.mutations import MUTATIONS
from tests.chaos.told import Teller, configure_logs, stop_event

JUMPS_S = 5.0


async def main(told: dict[str, Any]) -> None:
    """Run the roles until SIGTERM."""
    directory, logged = Path(told["dir"]), Counter[str]()
    configure_logs(logged)
    for name in told["mutations"]:
        MUTATIONS[name]()
    trap = moments.Trap(directory)
    moments.plant(trap)
    trap.arm()
    _set_clock(told.get("clock_s", 0.0))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, trap.arm)
    stop, lost = stop_event(), _count_lost_leases()
    worker = Worker(Settings(**told["settings"]), told["roles"])
    teller = Teller(directory, lambda: counts(worker) | {"leases_lost": lost[0], "said": logged})
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    service = worker.app()
    async with running(service):
        beating = asyncio.create_task(teller.beating(name=worker.name, ready=True))
        await service.wait(stop)
        beating.cancel()
    await worker.close()
    teller.tell(name=worker.name, ready=True, ended=True)


def _set_clock(ahead_s: float) -> None:
    """The wall clock of this process is wrong by so much, and jumps by as much again at times."""
    began = monotonic()

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            jumps = int((monotonic() - began) / JUMPS_S) % 2
            return datetime.now(tz) + timedelta(seconds=ahead_s * (1 + jumps))

    if ahead_s:
        app.datetime = Wrong  # type: ignore[attr-defined]


def _count_lost_leases() -> list[int]:
    """How many leases this process was told to have lost."""
    count, forget = [0], Leases.forget

    def counting(self: Leases, partition: int) -> None:
        count[0] += partition in self.held
        forget(self, partition)

    Leases.forget = counting  # type: ignore[method-assign]
    return count


def counts(worker: Worker) -> dict[str, Any]:
    """What the loops have counted, summed over the parts of a kind."""
    told: Counter[str] = Counter()
    for feed, part in worker.feeds:
        if isinstance(part, CommandProcessor):
            told.update(dataclasses.asdict(part.counters))
            mirror = part.mirroring
            for name in ("mirrored", "already_there", "rebuilt", "caught_up", "failures"):
                told[f"mirror_{name}"] += getattr(mirror, name)
        elif isinstance(part, ProcessManager):
            told.update({"asked": part.sender.asked, "asked_again": part.sender.asked_again})
        elif isinstance(part, Projector):
            told["projected"] += part.events
        if isinstance(feed, CommandFeed):
            told["inbox_moved"] += feed.inbox.moved
        if hasattr(feed, "tail"):
            told["gaps"] += feed.tail.gaps
    return dict(told)
