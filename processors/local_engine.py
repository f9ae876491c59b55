"""A whole engine on this machine: servers, schema and processes, up while the context lasts.

`orchestrator up` and `orchestrator demo` are this and a little more.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from migrations.apply import migrate
from processors.keys import check
from processors.settings import Addresses, Settings
from processors.supervisor import Supervisor
from streams.embedded import embedded
from streams.logs.postgres import PostgresLog

WORKERS = (
    ("engine", ("worker", "--only", "commands", "--only", "managers")),
    ("projector", ("worker", "--only", "projections")),
)
"""Read models are built in a process of their own: a slow query there delays no decision."""


@contextmanager
def servers(settings: Settings, directory: Path) -> Iterator[Addresses]:
    """The servers that were given, or embedded ones on this data directory."""
    if settings.addresses is not None:
        yield settings.addresses
        return
    with _ended_in_order(), embedded(directory) as running:
        yield Addresses(running.database_url, running.redis_url)


@asynccontextmanager
async def processes(
    settings: Settings,
    addresses: Addresses,
    *,
    more: Sequence[tuple[str, tuple[str, ...]]] = (),
    log_dir: Path | None = None,
    restarts_max: int | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> AsyncIterator[Supervisor]:
    """The schema brought up to date, and the engine's processes as our children."""
    await migrate(addresses.database_url, settings.partitions)
    log = PostgresLog(addresses.database_url, 1)
    try:
        await log.open()
        await check(settings, log)
    finally:
        await log.close()
    environment = addresses.environment() | settings.key_environment()
    async with Supervisor(environment, log_dir, restarts_max, report) as supervisor:
        for number, (name, arguments) in enumerate(WORKERS):
            supervisor.start(name, *arguments, *_metrics(settings, number))
        for name, arguments in more:
            supervisor.start(name, *arguments)
        yield supervisor


def _metrics(settings: Settings, number: int) -> tuple[str, ...]:
    """Each worker's own port: AGENTCORE_METRICS_PORT and the ones after it."""
    if settings.metrics_port is None:
        return ()
    return ("--metrics-port", str(settings.metrics_port + number))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Every signal to stop unwinds the stack like Ctrl-C does, so that the servers stop in order.

    Also SIGINT itself, which shells tell their background jobs to ignore.
    """

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]  # as `nohup` wants it
    for number in before:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
