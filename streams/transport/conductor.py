"""From a message to the agents that listen to its topic: one event, one queue, no copy."""

# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faust import Event, Schema
from faust.transport.conductor import Conductor as BaseConductor
from mode import Service
from mode.utils.futures import notify


class BatchSchema(Schema):
    """Passes the batch through as the very object that the feed made; what is sent, as bytes."""

    def __init__(self) -> None:
        super().__init__(key_serializer="raw", value_serializer="raw")

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """The function that Faust calls for each message."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return Event(app, None, message.value, None, message)

        return decode


class Conductor(BaseConductor):
    """Delivers by topic instead of by partition, and waits where a queue is full.

    Faust's own looks up a compiled handler per partition under a lock, and starts a task for each
    message that meets a full queue, which is every message when an agent is slower than its feed.
    """

    mundane_level = "debug"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.subscribed = asyncio.Event()
        self._channels: dict[str, tuple[Any, ...]] = {}

    def channels(self, topic: str) -> tuple[Any, ...]:
        """The agents' channels for a topic."""
        return self._channels.get(topic, ())

    def _compile_message_handler(self) -> Callable[[Any], Awaitable[None]]:
        return self._deliver

    async def _deliver(self, message: Any) -> None:
        for channel in self._channels[message.topic]:
            await channel.queue.put(await channel.decode(message))

    @Service.task
    async def _subscriber(self) -> None:
        # The original waits for tables, and 45 s before it looks at a topic that was added later.
        await self.app.agents.wait_until_agents_started()
        changed = self._subscription_changed = asyncio.Event()
        while not self.should_stop:
            changed.clear()
            index = await self._update_indices()
            self._channels = {topic: tuple(channels) for topic, channels in index.items()}
            await self.app.consumer.subscribe(index)
            notify(self._subscription_done)
            self.subscribed.set()
            await changed.wait()
