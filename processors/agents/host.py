"""Many agents in one process over a few connections: tasks in, answers out.

A task is done by the least loaded agent of its role, or by the one that the engine chose. It stays
pending in its stream until its answer is in Redis, so that a host which comes back under the same
name finds what it had not finished, and the others take over what a dead host leaves. All streams
of a host are read in one call, which on Redis Cluster needs one slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Self

import structlog

from processors.access.own import Shown, nothing
from processors.agents.agent import Agent, Pool, Pushed, Role
from processors.agents.claims import LEASE_S, LEASE_S_MIN, Claims
from processors.agents.desk import Desk
from processors.agents.envelopes import Envelopes
from processors.agents.janitor import Janitor
from processors.agents.notices import Notices
from processors.agents.outbox import Outbox
from processors.agents.presence import Presence
from processors.agents.reader import Reader
from processors.agents.work import Counts
from streams.bus import BLOCK_MS_MAX, Bus
from streams.ending import end
from streams.partition import pushed_key, tasks_key
from streams.sealing.keyring import Keyring

logger = structlog.get_logger(__name__)

GRACE_S = 10.0  # what is running at a stop may take so long
FLUSH_S = 5.0  # and its answers so long to reach Redis
STREAMS_MAX = 1_000  # all are named in every read; more roles need more hosts

_READ_ENDS_S = BLOCK_MS_MAX / 1000 + 1.0


class AgentHost:
    """Runs agents; `name` is its own among all live hosts, and the same after a restart.

    `keys` seal what the agents say, and open what they are told; without, both stay as they are.
    `token` is what it shows with its answers, asked whenever some are sent; it speaks for all of
    its agents, and as `@name` where it is the host itself that gives a task up.

    After `lease_s` without a sign of life others take over its tasks: a handler that holds the
    event loop up for longer loses them.
    """

    def __init__(
        self,
        bus: Bus | str,
        agents: Iterable[Agent],
        *,
        name: str,
        lease_s: float = LEASE_S,
        keys: Keyring | None = None,
        token: Shown = nothing,
    ) -> None:
        if lease_s < LEASE_S_MIN:
            raise ValueError(f"The lease of a task is at least {LEASE_S_MIN} s, not {lease_s:g} s.")
        self.bus = bus if isinstance(bus, Bus) else Bus(bus)
        self.agents = tuple(agents)
        self.name = name
        self._owns_bus = not isinstance(bus, Bus)
        self._sure_s = lease_s / 2
        roles = _roles(self.agents)
        pools = {pool for role in roles for pool in role.pools}
        self._outbox = outbox = Outbox(self.bus, name, self._sure_s, token)
        self._envelopes = Envelopes(keys, {agent.tenant for agent in self.agents})
        self._desk = desk = Desk(name, outbox, pools, self._envelopes)
        self._reader = Reader(self.bus, name, roles, outbox, desk.take)
        pushed, bell = Pushed(pushed_key(name).encode()), f"agents:{name}:pushed"
        self._pushed = Reader(self.bus, name, [pushed], outbox, desk.take, bell)
        self._claims = Claims(self.bus, name, roles, desk, outbox, lease_s)
        self._presence = Presence(self.bus, name, self.agents, desk.placing)
        self._notices = Notices(self.bus, name, self.agents, desk.withdraw, desk.placing.gate)
        self._janitor = Janitor(self.bus, name, roles)
        desk.placing.made_room = self._made_room
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
        loops = {
            "reads": self._envelopes.ready(self._reader.run),
            "reads pushed": self._envelopes.ready(self._pushed.run),
            "answers": self._outbox.run(self._sent),
            "claims": self._claims.run(),
            "shows itself": self._presence.run(),
            "listens": self._notices.run(),
            "tidies": self._janitor.run(),
            "has keys": self._envelopes.run(),
        }
        self._loops = [
            asyncio.create_task(loop, name=f"{self.name} {what}") for what, loop in loops.items()
        ]

    def _made_room(self) -> None:
        self._reader.ring()
        self._pushed.ring()

    def _sent(self) -> None:
        self._reader.wake()
        self._pushed.wake()

    async def ended(self) -> None:
        """Wait until the host stops; raises what went wrong inside it."""
        done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
        for loop in done:
            loop.result()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Take nothing new, let what runs finish, send the answers, hand the rest to others."""
        if not self._loops:
            return
        loops, self._loops = self._loops, []
        self._presence.draining = True
        self._reader.stop()
        self._pushed.stop()
        await self._desk.close(grace_s, self._sure_s)
        await asyncio.wait(loops[:2], timeout=_READ_ENDS_S)
        try:
            await asyncio.wait_for(self._outbox.idle.wait(), FLUSH_S)
        except TimeoutError:
            logger.warning("answers_not_sent", host=self.name)
        await asyncio.gather(*(end(loop) for loop in loops))
        await self._presence.leave()
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
