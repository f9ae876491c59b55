"""The Faust app without what Faust does poorly or not at all without Kafka, and ways to run it."""

# mypy: disallow-subclassing-any=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import faust
from faust.app.base import BootStrategy

from streams.bus import Bus
from streams.feed import Feed
from streams.transport.assignor import Assignor, LeaderAssignor
from streams.transport.conductor import BatchSchema
from streams.transport.supervisor import Supervisor

BUFFER_BATCHES = 1
"""Between a feed and its agent: reading overlaps with deciding. What arrives meanwhile waits where
it can still become one batch; eight small ones here made each wait for eight commits."""
GRACE_S = 0.5  # for agents to finish the batch in hand when the app stops

SETTINGS: dict[str, Any] = {
    "broker": "redis-streams://",
    "env": {},  # BROKER_URL and the like in the environment would override what is said here
    "agent_supervisor": Supervisor,
    "PartitionAssignor": Assignor,
    "LeaderAssignor": LeaderAssignor,
    "autodiscover": False,
    "store": "memory://",
    "stream_buffer_maxsize": BUFFER_BATCHES,
    "stream_wait_empty": False,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "reply_create_topic": False,
    "web_enabled": False,
    "worker_redirect_stdouts": False,
}


class Boot(BootStrategy):
    """Starts the producer, the consumer, the agents and the conductor; stops in reverse."""

    enable_web = False
    enable_sensors = False

    def server(self) -> list[Any]:
        """The services of a worker."""
        return [self.app.producer, self.app.consumer, self.app.agents, self.app.topics]


class App(faust.App):
    """A Faust app whose topics are feeds.

    A partition that is won or lost disturbs no other: where Faust suspends all streams and throws
    away what waits in their queues, here only the callbacks are called. What an agent still gets of
    a lost partition is refused by the fence of its lease when the agent records it.
    """

    BootStrategy = Boot
    mundane_level = "debug"

    def __init__(self, name: str, feeds: Iterable[Feed], bus: Bus | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.feeds = {feed.topic: feed for feed in feeds}
        self.bus = bus

    def topic(self, *topics: str, **options: Any) -> Any:
        """The topic of a feed, whose stream yields batches; or any other, to be sent to."""
        if any(topic in self.feeds for topic in topics):
            options |= {"schema": BatchSchema(), "acks": False}
        return super().topic(*topics, **options)

    def agent(self, channel: Any = None, **options: Any) -> Any:
        """The one agent of a feed: several at once would lose the order within a partition."""
        if options.get("concurrency", 1) != 1 or options.get("isolated_partitions"):
            raise ValueError("One agent reads a feed: run more workers, or cut more partitions.")
        return super().agent(channel, **options)

    def FlowControlQueue(self, maxsize: int | None = None, **_: Any) -> Any:  # noqa: N802
        """A queue that is not emptied when partitions change: what it held would be skipped."""
        return super().FlowControlQueue(maxsize, clear_on_resume=False)

    def on_init_dependencies(self) -> Any:
        """The services to start, without the monitor, which costs more than the message."""
        return self.boot_strategy.server()

    def _create_directories(self) -> None:
        """None: nothing is kept on disk."""

    async def _wait_for_table_recovery_completed(self) -> bool:
        return False  # there are no tables

    async def _on_partitions_revoked(self, revoked: Any) -> None:
        await self.on_partitions_revoked.send(revoked)

    async def _on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        revoked, newly_assigned = self._update_assignment(assigned)
        await self.agents.on_rebalance(revoked, newly_assigned)
        await self.topics.on_partitions_assigned(assigned)
        await self.on_partitions_assigned.send(assigned)
        self.flow_control.resume()

    async def _stop_consumer(self) -> None:
        """Read nothing more, and let each agent finish its batch: its `async for` ends after it."""
        if self._consumer is None:
            return
        await self._consumer.halt()
        self.agents.cancel()
        actors = [actor.actor_task for agent in self.agents.values() for actor in agent._actors]
        if actors:
            await asyncio.wait(actors, timeout=GRACE_S)


def make_app(name: str, feeds: Iterable[Feed], bus: Bus | None = None, **overrides: Any) -> App:
    """A Faust app over these feeds; `overrides` are Faust settings. Touches no loop, no disk."""
    return App(name, feeds, bus, **(SETTINGS | overrides))


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """Run an app in this event loop; signals and logging stay the caller's."""
    try:
        await app.start()
        await app.wait(app.topics.subscribed)
        if not app.crashed:
            yield app
    finally:
        await app.stop()
    if app.crash_reason is not None:
        raise app.crash_reason


async def run_app(app: App, stop: asyncio.Event) -> None:
    """Run an app until `stop` is set; raises what it crashed of."""
    async with running(app):
        await app.wait(stop)
