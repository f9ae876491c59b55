"""What a host is told at once and may miss: tasks that nobody wants any more, closed agents.

Published, not streamed: it only saves work. An answer that comes all the same is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError

from processors.agents.agent import Agent
from processors.agents.wire import decode_gate
from streams.bus import Bus
from streams.codec import Poison
from streams.partition import gate_channel, withdrawn_channel

logger = structlog.get_logger(__name__)

PING_S = 5.0  # a connection that says nothing for so long is asked, and given up if it stays mute
RETRY_S, RETRY_S_MAX = 0.1, 2.0
MESSAGE_ID_BYTES_MAX = 1_000


class Notices:
    """One connection that listens for all agents of a host."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        agents: Sequence[Agent],
        withdraw: Callable[[str], None],
        gate: Callable[[str, bool, int | None], None],
    ) -> None:
        self.listening = asyncio.Event()
        self._redis = bus.redis
        self._gates = gate_channel(name)
        served = {(agent.tenant, role) for agent in agents for role in agent.roles}
        self._channels = [self._gates, *(withdrawn_channel(*one) for one in sorted(served))]
        self._withdraw = withdraw
        self._gate = gate

    async def run(self) -> None:
        """Listen, for ever; what is published meanwhile is missed."""
        wait_s = RETRY_S
        while True:
            listener: Any = self._redis.pubsub()
            try:
                await listener.subscribe(*self._channels)
                self.listening.set()
                wait_s = RETRY_S
                await self._listen(listener)
            except (RedisError, OSError) as error:
                if wait_s == RETRY_S:
                    logger.warning("notices_unheard", error=str(error)[:200])
            finally:
                self.listening.clear()
                await listener.aclose()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    async def _listen(self, listener: Any) -> None:
        """Until the connection fails."""
        asked = False
        while True:
            message = await listener.get_message(timeout=PING_S)
            if message is None and not asked:
                await listener.ping()
                asked = True
            elif message is None:
                raise ConnectionError("Redis does not answer.")
            else:
                asked = False
                if message["type"] == "message":
                    self._hear(message["channel"].decode(), message["data"])

    def _hear(self, channel: str, data: bytes) -> None:
        try:
            if channel == self._gates:
                self._gate(*decode_gate(data))
            elif len(data) <= MESSAGE_ID_BYTES_MAX:
                self._withdraw(data.decode())
        except (Poison, UnicodeDecodeError) as error:
            logger.warning("notice_refused", channel=channel, reason=str(error)[:200])
