"""Faust's producer: bytes to the stream that the topic names, through the engine's own bus.

The engine's processors publish through the bus by themselves, a batch in one call; this is for an
agent or a script that says `await app.topic("commands").send(value=...)`.
"""

# mypy: disallow-subclassing-any=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

import asyncio
from typing import Any

from faust.transport.producer import Producer as BaseProducer
from faust.types import TP
from faust.types.tuples import RecordMetadata

NO_BUS = (
    "This app was made without a bus: publish through streams.bus, or give one to make_app(bus=…)."
)
WHOLE_STREAM = 0
"""The partition that is reported for a stream that has none."""


class Producer(BaseProducer):
    """One XADD a message, never tried again: whether a lost one arrived, the sender asks."""

    mundane_level = "debug"

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> asyncio.Future[Any]:
        """The same as `send_and_wait`: what fails, fails here, not in a future nobody awaits."""
        done = asyncio.get_running_loop().create_future()
        done.set_result(await self.send_and_wait(topic, key, value, partition, timestamp, headers))
        return done

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Any:
        """Append to the stream `topic`, or `topic:{partition}` where one is given."""
        if self.app.bus is None:
            raise NotImplementedError(NO_BUS)
        if not isinstance(value, bytes):
            raise TypeError(f"a message is bytes, not {type(value).__name__}")
        stream = topic if partition is None else f"{topic}:{{{partition}}}"
        ids = await self.app.bus.append({stream: [value]})
        ms, _, number = ids[stream][0].partition(b"-")
        where = WHOLE_STREAM if partition is None else partition
        return RecordMetadata(topic, where, TP(topic, where), int(number), int(ms) / 1000, 0)

    async def create_topic(self, *_: Any, **__: Any) -> None:
        """Nothing to create: a stream begins with its first entry."""
