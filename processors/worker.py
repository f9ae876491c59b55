"""Runs a worker until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext

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
        async with _probes(worker, stop):
            await run_app(worker.app(), stop)
    finally:
        await worker.close()


def _probes(worker: Worker, stop: asyncio.Event) -> AbstractAsyncContextManager[None]:
    """What answers probes and scrapers, where a port is given."""
    settings = worker.settings
    if settings.metrics_port is None:
        return nullcontext()
    from processors.probes import serving

    return serving(worker, stop, settings.metrics_host, settings.metrics_port)
