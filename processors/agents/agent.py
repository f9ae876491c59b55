"""An agent, as one function; and the pools that hand out the least loaded of many alike.

An agent with a gate (its circuit is open, or tried) gets nothing, or less than it could, and lends
its pool no more room than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from processors.agents.wire import Assignment
from streams.message import DEFAULT_TENANT

STALE_ENTRIES_MAX = 64  # a heap is cleaned when more than half of it, and so many, is out of date
PUSHED_WAITING_MAX = 1_000  # they are refreshed like those that run

Handler = Callable[[Assignment], Awaitable[Any] | Any]
"""Does a task: an async function, or a plain one that answers at once or returns an awaitable.

The output is any JSON value. A plain function that answers at once costs no asyncio task, and
cannot be timed out. Raise TaskError, or anything else, to fail the attempt.
"""


@dataclass(slots=True)
class Agent:
    """One agent: its roles, its function, and how many tasks it does at once.

    `region` and `cost` are for allocation to compare; the unit of the cost is the user's.
    """

    agent_id: str
    roles: tuple[str, ...]
    handler: Handler
    capacity: int = 1
    tenant: str = DEFAULT_TENANT
    capabilities: tuple[str, ...] = ()
    description: str = ""
    region: str = ""
    cost: float = 0.0


@dataclass(slots=True, eq=False)
class Seat:
    """An agent at work: how many tasks it has now, and its valid entry in the pool's heap.

    `gate` is how many at once it may have by the engine's word, None leaves it to its capacity;
    `most` is what follows from both.
    """

    agent: Agent
    running: int = 0
    turn: int = 0
    gate: int | None = None
    most: int = 0

    def __post_init__(self) -> None:
        self.most = self.agent.capacity

    @property
    def is_open(self) -> bool:
        """Whether it gets any work."""
        return self.most > 0

    @property
    def room(self) -> int:
        """How many tasks more it may begin."""
        return max(0, self.most - self.running)

    @property
    def free(self) -> bool:
        """Whether it may begin one more."""
        return self.running < self.most


@dataclass(slots=True, eq=False)
class Role:
    """One stream of tasks: who serves it, and what was read and waits here for room."""

    stream: bytes
    pools: list[Pool] = field(default_factory=list)
    waiting: deque[Any] = field(default_factory=deque)

    @property
    def free(self) -> int:
        """How many more tasks its agents could begin now."""
        if self.waiting:
            return 0
        return sum([pool.free for pool in self.pools])

    def pool(self) -> Pool | None:
        """The pool with the most room; None where there is none."""
        pool = self.pools[0] if len(self.pools) == 1 else max(self.pools, key=_room)
        return pool if pool.free else None


@dataclass(slots=True, eq=False)
class Pushed(Role):
    """The stream of tasks that were given to one agent of this host by name."""

    held: int = 0
    """How many of them wait for room of their agent."""

    @property
    def free(self) -> int:
        """How many more may be read: those for a busy agent must not hide the others'."""
        return PUSHED_WAITING_MAX - self.held


class Pool:
    """Agents that serve the same streams; the least loaded goes first, equals take turns."""

    def __init__(self, agents: list[Agent]) -> None:
        self.free = sum(agent.capacity for agent in agents)
        self.capacity = self.free
        self.seats = [Seat(agent) for agent in agents]
        self._turns = count(1)
        self._heap: list[tuple[float, int, Seat]] = []
        for seat in self.seats:
            self.put(seat)

    def take(self) -> Seat:
        """The least loaded agent; give it back with `put`, after `begin` if it stays at work."""
        while True:
            _, turn, seat = heappop(self._heap)
            if turn == seat.turn:
                return seat

    def put(self, seat: Seat) -> None:
        """Back in line, behind those that have as much to do."""
        seat.turn = next(self._turns)
        if seat.running < seat.most:
            heappush(self._heap, (seat.running / seat.agent.capacity, seat.turn, seat))
        if len(self._heap) > 2 * len(self.seats) + STALE_ENTRIES_MAX:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].turn]
            heapify(self._heap)

    def begin(self, seat: Seat) -> None:
        """The agent has one task more."""
        seat.running += 1
        self.free -= 1

    def end(self, seat: Seat) -> None:
        """The agent has one task less."""
        before = seat.room
        seat.running -= 1
        self.free += seat.room - before
        self.put(seat)

    def gate(self, seat: Seat, gate: int | None) -> None:
        """How many tasks at once the agent may have; what it has begun goes on."""
        if seat.gate != gate:
            before, capacity = seat.room, seat.agent.capacity
            seat.gate, seat.most = gate, capacity if gate is None else min(gate, capacity)
            self.free += seat.room - before
            self.put(seat)


def _room(pool: Pool) -> float:
    return pool.free / pool.capacity
