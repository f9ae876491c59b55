"""A worker in a process of its own for tests: can freeze at a moment, and says what it counted.

    python -m tests.system.child commands,managers 0.6 "before the commit"

It stops itself (SIGSTOP, as a debugger or a machine that sleeps would stop it) at the moment that
the parent has named at its start or by a real-time signal, with its work in hand. What it counted
comes as one line of JSON after SIGTERM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from processors.app import Worker
from processors.command_processor import CommandProcessor
from processors.process_manager import ProcessManager
from processors.settings import read_settings
from streams.transport import running

MOMENTS = ("before the commit", "before the mirror")


class Freezer:
    """Stops this process at the moment that was asked for, once."""

    def __init__(self, armed: str) -> None:
        self.armed: str | None = armed or None

    def wrap(self, moment: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, where the process may stop before."""

        async def stopping(*arguments: Any) -> Any:
            if self.armed == moment and arguments[0]:
                self.armed = None
                os.kill(os.getpid(), signal.SIGSTOP)
            return await call(*arguments)

        return stopping

    def arm(self, moment: str) -> None:
        """Stop at this moment when it comes next."""
        self.armed = moment


async def main() -> None:
    """Run the roles until SIGTERM."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    roles, lease_s = sys.argv[1].split(","), float(sys.argv[2])
    worker = Worker(read_settings().model_copy(update={"lease_s": lease_s}), roles)
    freezer, stop, loop = Freezer(sys.argv[3]), asyncio.Event(), asyncio.get_running_loop()
    worker.log.append = freezer.wrap(MOMENTS[0], worker.log.append)  # type: ignore[method-assign]
    worker.bus.mirror = freezer.wrap(MOMENTS[1], worker.bus.mirror)  # type: ignore[method-assign]
    for number, moment in enumerate(MOMENTS):
        loop.add_signal_handler(signal.SIGRTMIN + number, freezer.arm, moment)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    app = worker.app()
    async with running(app):
        say({"name": worker.name})
        await app.wait(stop)
    await worker.close()
    say(counts(worker))


def counts(worker: Worker) -> dict[str, Any]:
    """What its loops have counted."""
    told: dict[str, Any] = {}
    for feed, part in worker.feeds:
        if isinstance(part, CommandProcessor):
            mirror = part.mirroring
            told |= dataclasses.asdict(part.counters)
            told |= {"mirrored": mirror.mirrored, "already_there": mirror.already_there}
        elif isinstance(part, ProcessManager):
            told |= {"asked": part.sender.asked, "asked_again": part.sender.asked_again}
            told |= {"gaps": feed.tail.gaps}  # type: ignore[attr-defined]
    return told


def say(what: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
