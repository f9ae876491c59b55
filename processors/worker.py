"""Runs a worker until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterable

from processors.app import ROLES, Worker
from processors.settings import Settings
from streams.transport import run_app

GC_ALLOCATIONS = 50_000
"""Garbage is looked for this rarely: the hot path makes no cycles, and 700 (the default) costs."""


async def run_worker(
    settings: Settings, roles: Iterable[str] = ROLES, stop: asyncio.Event | None = None
) -> None:
    """Run the roles until `stop` is set, or SIGTERM or SIGINT comes where it is not given."""
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(settings, roles)
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    try:
        await run_app(worker.app(), stop)
    finally:
        await worker.close()
