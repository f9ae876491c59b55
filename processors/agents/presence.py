"""A host shows that it lives, and what it serves: two hashes in Redis that everybody may read.

`hosts` holds {"beat", "every_s", "running", "gates", "draining"} by host name, anew every `every_s`
seconds; `running` has the agents that have begun tasks, `gates` those that were given a limit and
how many tasks at once that is, `draining` is there while the host stops. Whoever
judges looks whether the beat changes, on a clock of its own. `hosts:cards` holds what does not
change. Both are gone after an orderly stop, and come back by themselves after a loss.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from redis.exceptions import RedisError

from processors.agents.agent import Agent
from processors.agents.placing import Placing
from streams.bus import Bus
from streams.partition import HOSTS, HOSTS_CARDS

logger = structlog.get_logger(__name__)

EVERY_S = 1.0
AGENTS_A_SECOND = 4_000  # a larger host shows itself less often: 10,000 agents, every 2.5 s
LEAVE_S = 1.0  # an orderly stop does not wait longer for this


class Presence:
    """What one host says about itself."""

    def __init__(self, bus: Bus, name: str, agents: Sequence[Agent], placing: Placing) -> None:
        self.every_s = max(EVERY_S, len(agents) / AGENTS_A_SECOND)
        self.draining = False
        self._redis = bus.redis
        self._name = name
        self._cards = orjson.dumps([_card(agent) for agent in agents])
        self._placing = placing
        self._beat = time.time_ns() // 1_000_000  # never one of this name's earlier life

    async def run(self) -> None:
        """Show that the host lives, for ever."""
        fresh = True
        while True:
            try:
                await self.show(cards=fresh)
                fresh = False
            except (RedisError, OSError) as error:
                logger.warning("host_not_shown", host=self._name, error=str(error)[:200])
            await asyncio.sleep(self.every_s)

    async def show(self, *, cards: bool = False) -> None:
        """One beat; the cards only where they are not known."""
        self._beat += 1
        said: dict[str, Any] = {
            "beat": self._beat,
            "every_s": self.every_s,
            "running": self._placing.running(),
        }
        if gates := self._placing.gates():
            said["gates"] = gates
        if self.draining:
            said["draining"] = True
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(HOSTS, self._name, orjson.dumps(said))
            pipe.hexists(HOSTS_CARDS, self._name)
            _, known = await pipe.execute()
        if cards or not known:
            await self._redis.hset(HOSTS_CARDS, self._name, self._cards)

    async def leave(self) -> None:
        """Take it back: nobody need wait until the beats are missed."""
        try:
            async with asyncio.timeout(LEAVE_S), self._redis.pipeline(transaction=False) as pipe:
                pipe.hdel(HOSTS, self._name)
                pipe.hdel(HOSTS_CARDS, self._name)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("host_not_taken_back", host=self._name, error=str(error)[:200])


def _card(agent: Agent) -> dict[str, Any]:
    """What allocation needs to know of an agent."""
    return {
        "id": agent.agent_id,
        "tenant": agent.tenant,
        "roles": agent.roles,
        "capabilities": agent.capabilities,
        "capacity": agent.capacity,
        "region": agent.region,
        "cost": agent.cost,
    }
