"""One connection to Redis for what is asked all the time: a call is one write and one future.

redis-py makes the connection (TLS, AUTH, SELECT, as the URL says), hiredis packs and parses;
redis-py's own way through its pool and streams costs three times as much. Calls are sent in order
and pipelined: many may wait at once. Nothing is ever sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from hiredis import pack_command
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NotAnswered

LOST = "The connection to Redis was lost."


class Line:
    """A connection that is made when it is needed, and again after it was lost."""

    def __init__(self, pool: Any, timeout_s: float) -> None:
        """`pool` is redis-py's, for how to connect; `timeout_s` is longer than any BLOCK."""
        self._pool = pool
        self._timeout_s = timeout_s
        self._connecting = asyncio.Lock()
        self._wire: _Wire | None = None

    async def call(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands in one go; their answers, errors among them. Raises RedisError.

        Cancelled, it leaves what was sent to happen or not; the answers are dropped.
        """
        wire = self._wire
        if wire is None or wire.lost:
            wire = await self._connect()
        return await wire.send(commands)

    async def one(self, *command: Any) -> Any:
        """The answer to one command; raises RedisError, also where the answer is an error."""
        [reply] = await self.call(command)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def close(self) -> None:
        """Let go of the connection; whoever waits hears that it was lost."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.end(ConnectionLost(LOST))

    async def _connect(self) -> _Wire:
        async with self._connecting:
            wire = self._wire
            if wire is None or wire.lost:
                pool = self._pool
                made = pool.connection_class(**(pool.connection_kwargs | {"protocol": 2}))
                try:
                    await made.connect()
                except OSError as error:
                    raise ConnectionLost(str(error)) from error
                wire = self._wire = _Wire(made, self._timeout_s)
            return wire


class _Call:
    """Commands that were sent together, and the answers to them so far."""

    __slots__ = ("answer", "count", "replies", "sent")

    def __init__(self, answer: asyncio.Future[list[Any]], count: int, sent: float) -> None:
        self.answer = answer
        self.count = count
        self.replies: list[Any] = []
        self.sent = sent


class _Wire(asyncio.Protocol):
    """A connection from its beginning to its end."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.lost = False
        self._connection = connection  # it closes what it made when it is forgotten
        self._transport = connection._writer.transport
        self._timeout_s = timeout_s
        self._parser = hiredis.Reader(replyError=_error)
        self._calls: deque[_Call] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self.end(ConnectionLost(LOST))

    def send(self, commands: Sequence[Sequence[Any]]) -> asyncio.Future[list[Any]]:
        """The answers are the future's result."""
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.lost:
            answer.set_exception(ConnectionLost(LOST))
            return answer
        packed = [pack_command(tuple(command)) for command in commands]
        self._calls.append(_Call(answer, len(packed), self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        return answer

    def end(self, error: RedisError) -> None:
        """Everybody who waits hears why."""
        if self.lost:
            return
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._connection._reader = self._connection._writer = None  # nothing is left to close
        for call in self._calls:
            if not call.answer.done():
                call.answer.set_exception(error)
        self._calls.clear()

    def _look(self) -> None:
        """Give up where an answer has been missing for too long."""
        self._watch = None
        if self._calls:
            left_s = self._calls[0].sent + self._timeout_s - self._loop.time()
            if left_s > 0:
                self._watch = self._loop.call_later(left_s, self._look)
            else:
                text = f"Redis has not answered within {self._timeout_s:g} s."
                self.end(NotAnswered(text))

    def data_received(self, data: bytes) -> None:
        """Answers, in the order of the calls."""
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                call = self._calls[0]
                call.replies.append(reply)
                if len(call.replies) == call.count:
                    self._calls.popleft()
                    if not call.answer.done():
                        call.answer.set_result(call.replies)
        except (hiredis.HiredisError, IndexError) as error:  # this is no Redis, or no answer to us
            self.end(ConnectionLost(f"Redis was not understood: {error!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, or the way to it, has gone."""
        self.end(ConnectionLost(f"{LOST} {exc or ''}".strip()))


def _error(text: str) -> RedisError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
