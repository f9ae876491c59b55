"""What a child tells its parent: a file of counts, written anew whenever they have changed.

A file, since it outlives a SIGKILL: what was counted until shortly before the end is known.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

BEAT_S = 0.1


def configure_logs(logged: Counter[str]) -> None:
    """Logs go to the diary, and how often each thing was said is counted."""

    def note(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        logged[event["event"]] += 1
        error = str(event.get("error", ""))
        for word in ("maxmemory", "NOGROUP"):
            logged[word] += word in error
        return event

    structlog.configure(
        processors=[
            note,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


class Teller:
    """Writes what `counts` says into the child's file, as long as `beating` runs and at the end."""

    def __init__(self, directory: Path, counts: Callable[[], dict[str, Any]]) -> None:
        self._path = directory / "counts.json"
        self._counts = counts
        self._told = ""

    def tell(self, **more: Any) -> None:
        """Write, whole or not at all."""
        said = json.dumps(self._counts() | more)
        if said != self._told:
            fresh = self._path.with_suffix(".new")
            fresh.write_text(said)
            fresh.replace(self._path)
            self._told = said

    async def beating(self, **more: Any) -> None:
        """Tell for ever."""
        while True:
            self.tell(**more)
            await asyncio.sleep(BEAT_S)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop
