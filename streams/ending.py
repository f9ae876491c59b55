"""Ending a background task for certain."""

from __future__ import annotations

import asyncio
from typing import Any

CANCEL_S = 0.2


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended; what it raised is its own affair.

    Again and again, since redis-py sends under asyncio.wait_for, which in Python 3.11 swallows a
    cancellation that comes just when the sending has ended; the task would go on for ever.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_S)
    if task is not None and not task.cancelled():
        task.exception()
