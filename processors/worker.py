"""Runs a worker until it is told to stop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext

from processors.app import ROLES, Worker
from processors.settings import Settings
from streams.transport import run_app

GC_ALLOCATIONS = 250_000
"""Garbage is looked for this rarely: the hot path makes no cycles, so it would look through whole
batches in hand and find nothing. Three large batches are less than this."""


HEAP_BLOCK_BYTES = 32 * 1024 * 1024
HEAP_SPARE_BYTES = 64 * 1024 * 1024
"""What a batch leaves free stays ours, up to so much: else each batch has the kernel clear it."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt; elsewhere nothing is tuned
_libc = ctypes.CDLL(None)


def steady_heap() -> None:
    """Look for garbage rarely, and keep the memory of a batch for the next one."""
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)
        _libc.mallopt(_M_TRIM_THRESHOLD, HEAP_SPARE_BYTES)


async def run_worker(
    settings: Settings, roles: Iterable[str] = ROLES, stop: asyncio.Event | None = None
) -> None:
    """Run the roles until `stop` is set, or SIGTERM or SIGINT comes where it is not given."""
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(settings, roles)
    steady_heap()
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
