"""Many agents in one process over a few connections: tasks in, answers out.

A task is done by the least loaded agent of its role. It stays pending in its stream until its
answer is in Redis, so that a host which comes back under the same name finds what it had not
finished, and the others take over what a dead host leaves. All streams of a host are read in one
call, which on Redis Cluster needs one slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Self

import structlog

from processors.agents.agent import Agent, Pool, Role
from processors.agents.claims import LEASE_S, Claims
from processors.agents.desk import Counts, Desk
from processors.agents.outbox import Outbox
from processors.agents.reader import Reader
from streams.bus import BLOCK_MS_MAX, Bus
from streams.partition import tasks_key

logger = structlog.get_logger(__name__)

GRACE_S = 10.0  # what is running at a stop may take so long
FLUSH_S = 5.0  # and its answers so long to reach Redis
STREAMS_MAX = 1_000  # all are named in every read; more roles need more hosts

_READ_ENDS_S = BLOCK_MS_MAX / 1000 + 1.0


class AgentHost:
    """Runs agents; `name` is its own among all live hosts, and the same after a restart."""

    def __init__(
        self, bus: Bus | str, agents: Iterable[Agent], *, name: str, lease_s: float = LEASE_S
    ) -> None:
        self.bus = bus if isinstance(bus, Bus) else Bus(bus)
        self.agents = tuple(agents)
        self.name = name
        self._owns_bus = not isinstance(bus, Bus)
        self._outbox = Outbox(self.bus)
        self._desk = Desk(self._outbox)
        roles = _roles(self.agents)
        self._reader = Reader(self.bus, name, roles, self._outbox, self._desk.take)
        self._claims = Claims(self.bus, name, roles, self._desk, lease_s)
        self._desk.made_room = self._reader.ring
        self._loops: list[asyncio.Task[None]] = []

    @property
    def counts(self) -> Counts:
        """What it has done since it began."""
        return self._desk.counts

    @property
    def in_hand(self) -> int:
        """How many tasks it has read and not answered."""
        return len(self._desk.in_hand)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin; Redis may come later."""
        self._loops = [
            asyncio.create_task(self._reader.run(), name=f"{self.name} reads"),
            asyncio.create_task(self._outbox.run(self._reader.wake), name=f"{self.name} answers"),
            asyncio.create_task(self._claims.run(), name=f"{self.name} claims"),
        ]

    async def ended(self) -> None:
        """Wait until the host stops; raises what went wrong inside it."""
        done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
        for loop in done:
            loop.result()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Take nothing new, let what runs finish, send the answers; the rest stays pending."""
        if not self._loops:
            return
        loops, self._loops = self._loops, []
        self._reader.stop()
        await self._desk.close(grace_s)
        await asyncio.wait(loops[:1], timeout=_READ_ENDS_S)
        try:
            await asyncio.wait_for(self._outbox.idle.wait(), FLUSH_S)
        except TimeoutError:
            logger.warning("answers_not_sent", host=self.name)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if self._owns_bus:
            await self.bus.close()


def _roles(agents: Sequence[Agent]) -> list[Role]:
    """One per stream; agents that serve the same streams share a pool."""
    alike: dict[frozenset[str], list[Agent]] = {}
    known = set()
    for agent in agents:
        if agent.agent_id in known:
            raise ValueError(f"There are two agents {agent.agent_id!r}; give each its own id.")
        known.add(agent.agent_id)
        if agent.capacity < 1 or not agent.roles:
            raise ValueError(f"The agent {agent.agent_id!r} needs a role and a capacity above 0.")
        streams = frozenset(tasks_key(agent.tenant, role) for role in agent.roles)
        alike.setdefault(streams, []).append(agent)
    roles: dict[str, Role] = {}
    for streams, members in alike.items():
        pool = Pool(members)
        for stream in sorted(streams):
            roles.setdefault(stream, Role(stream.encode())).pools.append(pool)
    if not 1 <= len(roles) <= STREAMS_MAX:
        raise ValueError(f"{len(roles)} roles were given; a host serves 1 to {STREAMS_MAX:,}.")
    return list(roles.values())
