"""A host of agents in a process of its own for tests: killed, stopped and continued by the parent.

    python -m tests.system.host_child NAME LEASE_S SECONDS

Its agent serves the role `r` and takes SECONDS for a task (below 0: for ever). It says when it
listens, and after SIGTERM what it counted, each as one line of JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from typing import Any

import orjson
import structlog

from processors.agents import Agent, AgentHost, Assignment

CAPACITY = 50
GRACE_S = 0.2


async def main() -> None:
    """Run the host until SIGTERM."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    name, lease_s, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    async def work(assignment: Assignment) -> str:
        await asyncio.sleep(seconds) if seconds >= 0 else await asyncio.Event().wait()
        return name

    agent = Agent(f"of-{name}", ("r",), work, CAPACITY)
    host = AgentHost(os.environ["REDIS_URL"], [agent], name=name, lease_s=lease_s)
    host.start()
    await host._notices.listening.wait()
    say({"ready": True})
    await stop.wait()
    await host.stop(GRACE_S)
    say(dataclasses.asdict(host.counts))


def say(what: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
