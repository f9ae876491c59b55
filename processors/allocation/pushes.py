"""Tasks for which an agent is chosen: who has which, and what waits for one.

It holds what this process has given out and has not heard to be over. That is bounded: beyond it
the oldest are forgotten, and what nobody remembers is found or missed by dispatch's checks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from processors.agents.wire import Assignment
from processors.allocation.candidate import Candidate
from processors.allocation.directory import Directory
from processors.allocation.need import Need
from processors.allocation.policies import POLICIES, least_loaded
from streams.partition import pushed_key

GIVEN_MAX = 100_000
WAITING_MAX = 100_000
LAST_MAX = 10_000  # roles and needs whose turns are remembered
GIVEN_S = 180.0  # dispatch looks at every open task more often: what it does not name is over

Push = tuple[str, Assignment]
"""A host's stream, and the task with the name of the agent that is to do it."""

Queue = tuple[str, str, Need]
"""Tenant, role and need: tasks that are alike in these wait in one line."""


@dataclass(slots=True)
class Given:
    """A task, who has it, and when that was last known."""

    assignment: Assignment
    need: Need
    to: Candidate
    at: float


class Pushes:
    """What one process has pushed and what waits there."""

    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.waiting = 0
        self._clock = clock
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._holders: dict[Candidate, None] = {}
        self._last: OrderedDict[Queue, str] = OrderedDict()
        self._queues: dict[Queue, OrderedDict[str, Assignment]] = {}
        self._queue_of: dict[str, Queue] = {}

    def place(self, assignment: Assignment, need: Need) -> Push | None:
        """Where the task goes; None where it waits. Said again, it goes where it went before."""
        message_id = assignment.message_id
        given = self._given.get(message_id)
        if given is None or given.assignment.delivery < assignment.delivery:
            self.settle(message_id)
            queue = (assignment.tenant, assignment.role, need)
            found = self._choose(queue)
            if found is None:
                self._wait(queue, message_id, assignment)
                return None
            given = self._give(message_id, assignment, need, found)
        return _push(given)

    def sweep(self) -> None:
        """Let go of what is over without our having heard of it."""
        now = self._clock()
        while self._given and now - (oldest := next(iter(self._given.values()))).at > GIVEN_S:
            self.settle(oldest.assignment.message_id)

    def host_of(self, message_id: str) -> str | None:
        """The host that an open task was pushed to, as far as is remembered."""
        given = self._given.get(message_id)
        if given is None:
            return None
        given.at = self._clock()
        self._given.move_to_end(message_id)
        return given.to.host

    def orphaned(self, message_id: str) -> bool:
        """Whether a task was given to an agent that is gone."""
        given = self._given.get(message_id)
        return given is not None and self._is_gone(given.to)

    def waits(self, message_id: str) -> bool:
        """Whether the task waits here for an agent."""
        return message_id in self._queue_of

    def adopt(self, assignment: Assignment, need: Need, agent: str) -> bool:
        """Take note of a task that another process has pushed; false if its agent is gone."""
        one = self.directory.agents.get(agent)
        if one is None or one.lost:
            return False
        self._give(assignment.message_id, assignment, need, one)
        return True

    def settle(self, message_id: str) -> None:
        """The task is over, or is given to somebody else."""
        given = self._given.pop(message_id, None)
        if given is not None:
            given.to.own -= 1
        queue = self._queue_of.pop(message_id, None)
        if queue is not None:
            self.waiting -= 1
            del self._queues[queue][message_id]
            if not self._queues[queue]:
                del self._queues[queue]

    def orphans(self) -> list[Given]:
        """What was given to agents that are lost, or that their hosts do not have any more."""
        self._holders = {one: None for one in self._holders if one.own}
        if not any(map(self._is_gone, self._holders)):
            return []
        return [given for given in self._given.values() if self._is_gone(given.to)]

    def _is_gone(self, one: Candidate) -> bool:
        now = self.directory.agents.get(one.agent)
        return now is None or now.lost or now.host != one.host

    def retry(self, ours: Callable[[Assignment], bool]) -> list[Push]:
        """What has waited and goes now; what is not ours any more is forgotten."""
        pushes: list[Push] = []
        for queue in list(self._queues):
            for message_id, assignment in list(self._queues[queue].items()):
                if not ours(assignment):
                    self.settle(message_id)
                    continue
                found = self._choose(queue)
                if found is None:
                    break
                self.settle(message_id)
                pushes.append(_push(self._give(message_id, assignment, queue[2], found)))
        return pushes

    def _choose(self, queue: Queue) -> Candidate | None:
        tenant, role, need = queue
        choose = POLICIES.get(need.policy, least_loaded.choose)
        found = choose(self.directory.serving(tenant, role), need, self._last.get(queue, ""))
        if found is not None:
            self._last[queue] = found.agent
            if len(self._last) > LAST_MAX:
                self._last.popitem(last=False)
        return found

    def _give(self, message_id: str, assignment: Assignment, need: Need, to: Candidate) -> Given:
        self.settle(message_id)
        self._holders[to] = None
        to.own += 1
        to.peak = max(to.peak, to.own)
        self.directory.busy.add(to)
        given = self._given[message_id] = Given(assignment, need, to, self._clock())
        if len(self._given) > GIVEN_MAX:
            self.settle(next(iter(self._given)))
        return given

    def _wait(self, queue: Queue, message_id: str, assignment: Assignment) -> None:
        if self.waiting < WAITING_MAX:
            self._queues.setdefault(queue, OrderedDict())[message_id] = assignment
            self._queue_of[message_id] = queue
            self.waiting += 1


def _push(given: Given) -> Push:
    return pushed_key(given.to.host), replace(given.assignment, agent=given.to.agent)
