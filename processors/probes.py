"""What a worker tells over HTTP: /live while its loop turns, /ready while it can work, /metrics.

Not a health check of the servers: a worker whose Postgres is away is alive, and waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from processors.metrics import WorkerMetrics
from processors.settings import BadSettings

if TYPE_CHECKING:
    from processors.app import Worker

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLOSE_S = 0.2  # for answers that are on their way when the worker ends
BACKLOG = 16  # scrapers and probes are few


def ready(worker: Worker, stop: asyncio.Event) -> bool:
    """Whether every feed runs and beats; false as the first act of a stop."""
    return not stop.is_set() and all(
        feed.started and part.leases.beating for feed, part in worker.feeds
    )


@asynccontextmanager
async def serving(worker: Worker, stop: asyncio.Event, host: str, port: int) -> AsyncIterator[None]:
    """Answer while the context lasts; raises BadSettings where the port cannot be had."""

    def can_work() -> bool:
        return ready(worker, stop)

    metrics = WorkerMetrics(worker, can_work)

    async def on_live(_: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def on_ready(_: web.Request) -> web.Response:
        if can_work():
            return web.Response(text="ready\n")
        return web.Response(text="not ready\n", status=503)

    async def on_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [
            web.get("/live", on_live),
            web.get("/ready", on_ready),
            web.get("/metrics", on_metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        except OSError as error:
            text = f"AGENTCORE_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}."
            raise BadSettings(text) from None
        yield
    finally:
        await runner.cleanup()
