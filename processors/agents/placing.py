"""Which agent does a task: at once, or when there is room; and agents that get less, or nothing.

A task of a role goes to the least loaded of its agents; one for an agent by name waits for that one
only. What is dropped while it waits is passed over when its turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from processors.agents.agent import Agent, Pool, Pushed, Role, Seat
from processors.agents.wire import Assignment
from processors.agents.work import Work


class Placing:
    """The agents of one host, and the tasks that wait for them."""

    def __init__(self, pools: Iterable[Pool], hand_back: Callable[[Work], None]) -> None:
        """`hand_back` is called with what no agent of this host can do."""
        self.seats = {s.agent.agent_id: (pool, s) for pool in pools for s in pool.seats}
        self.begin: Callable[[Work, Pool, Seat], None] = lambda *_: None
        self.made_room: Callable[[], None] = lambda: None
        self.closed = False
        self._hand_back = hand_back
        self._crowded: dict[Role, None] = {}
        self._named: dict[Seat, deque[Work]] = {}

    def place(self, work: Work) -> None:
        """Have a task done now, or later."""
        role = work.role
        if type(role) is Pushed:
            self._push(work, role)
        elif not role.waiting and (pool := role.pool()):
            self.begin(work, pool, pool.take())
        else:
            role.waiting.append(work)
            self._crowded[role] = None

    def _push(self, work: Work, pushed: Pushed) -> None:
        """A task for one agent waits for that one only; where there is none, others may do it."""
        said = work.assignment
        pool, seat = self.seats.get(said.agent or "", (None, None))
        if pool is None or seat is None or not seat.is_open or not _serves(seat.agent, said):
            self._hand_back(work)
        elif seat.free and seat not in self._named:
            self.begin(work, pool, seat)
        else:
            self._named.setdefault(seat, deque()).append(work)
            pushed.held += 1

    def freed(self, pool: Pool, seat: Seat) -> None:
        """Begin what waits, and have more read where there was no room."""
        named = bool(self._named) and self._admit_named(pool, seat)
        was_full = pool.free == 1
        if (self._crowded and self._admit()) or was_full or named:
            self.made_room()

    def dropped(self) -> None:
        """Something that waited is not to be done any more."""
        if (self._crowded and self._admit()) or self._named:
            self.made_room()

    def _admit(self) -> bool:
        """Begin what was read and waits; true where a role has no more of it."""
        crowded = len(self._crowded)
        for role in [] if self.closed else list(self._crowded):
            while role.waiting:
                work = role.waiting[0]
                pool = None if work.answered else role.pool()
                if pool is None and not work.answered:
                    break
                role.waiting.popleft()
                if pool is not None:
                    self.begin(work, pool, pool.take())
            if not role.waiting:
                del self._crowded[role]
        return len(self._crowded) < crowded

    def _admit_named(self, pool: Pool, seat: Seat) -> bool:
        """Begin what waits for this agent; true where that makes room in the stream's share."""
        queue = self._named.get(seat)
        if queue is None or self.closed:
            return False
        was_full = False
        while queue and (seat.free or queue[0].answered):
            work = queue.popleft()
            assert isinstance(work.role, Pushed)
            was_full = was_full or not work.role.free
            work.role.held -= 1
            if not work.answered:
                self.begin(work, pool, seat)
        if not queue:
            del self._named[seat]
        return was_full

    def gate(self, agent: str, is_open: bool, limit: int | None) -> None:
        """What an agent may get; what waits for one that gets nothing goes back to others."""
        pool, seat = self.seats.get(agent, (None, None))
        if pool is None or seat is None:
            return
        pool.gate(seat, limit if is_open else 0)
        if is_open:
            self.freed(pool, seat)
            self.made_room()
            return
        for work in self._named.get(seat, ()):
            if not work.answered:
                self._hand_back(work)
        self._admit_named(pool, seat)
        for role in list(self._crowded):
            if not any(s.is_open for p in role.pools for s in p.seats):
                for work in role.waiting:
                    if not work.answered:
                        self._hand_back(work)
        self._admit()

    def running(self) -> dict[str, int]:
        """How many tasks each agent has begun, of those that have any."""
        return {name: seat.running for name, (_, seat) in self.seats.items() if seat.running}

    def gates(self) -> dict[str, int]:
        """How many tasks at once the agents may have that were given a limit."""
        seats = self.seats.items()
        return {name: seat.gate for name, (_, seat) in seats if seat.gate is not None}


def _serves(agent: Agent, said: Assignment) -> bool:
    return agent.tenant == said.tenant and said.role in agent.roles
