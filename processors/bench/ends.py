"""Learning of the ends of executions from the log, as soon as they are durable and visible."""

from __future__ import annotations

import asyncio
import time
from typing import Self

from processors.cli.exits import Failed
from streams.bus import Bus
from streams.codec import decode_event
from streams.ending import end
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.tail import Tail

MARK = b'"type":"Execution'
ENDS = {"ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"}


class Ends:
    """Follows all partitions from now on; `async with Ends(log, bus) as ends`.

    The mirror is written after the commit, so what it shows is durable.
    """

    def __init__(self, log: PostgresLog, bus: Bus) -> None:
        self._tail = Tail(log, bus)
        self._positions: dict[int, int] = {}
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        cursors = await self._tail.log.cursors(WRITER)
        self._positions = {cursor.partition: cursor.position for cursor in cursors}
        self._reader = asyncio.create_task(self._read(), name="ends of executions")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._reader)

    def expect(self, execution_id: str) -> asyncio.Future[int]:
        """The nanosecond (monotonic) at which its end was seen; Failed where it did not complete.

        Ask before the execution is started: what has passed is not looked for.
        """
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[execution_id] = found
        return found

    async def _read(self) -> None:
        try:
            while True:
                for partition, messages in (await self._tail.read(self._positions)).items():
                    self._positions[partition] += len(messages)
                    for message in messages:
                        if MARK in message:
                            self._tell(message)
        except Exception as error:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(error)
            raise

    def _tell(self, message: bytes) -> None:
        event = decode_event(message)
        if event.type not in ENDS:
            return
        waiting = self._waiting.pop(event.root, None)
        if waiting is None or waiting.done():
            return
        if event.type == "ExecutionCompleted":
            waiting.set_result(time.monotonic_ns())
        else:
            waiting.set_exception(Failed(f"An execution ended by {event.type}: {event.data}."))
