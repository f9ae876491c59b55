"""Faust over Redis Streams: the transport `redis-streams://`, with no Kafka anywhere.

The feeds (`streams.feed`) say which partitions are owned and give one batch at a time; Faust gives
agents, supervision and a command line. Offsets, leases and durable state are the feeds', never
Faust's: no tables, no changelogs, no reply topics, no commits.

    app = make_app("orchestrator", [feed], bus)

    @app.agent(feed.topic)
    async def process(batches):
        worker = Worker()  # state begins here, and anew after each crash
        async for batch in batches:
            await worker.handle(batch)

    await run_app(app, stop)  # or, from a shell: faust -A processors.app worker --without-web
"""

from streams.transport.app import App, make_app, run_app, running
from streams.transport.driver import Transport

__all__ = ["App", "Transport", "make_app", "run_app", "running"]
