"""Carries out what process managers decide: tasks to agents, commands to their partitions."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from processors.access.own import Shown, nothing
from processors.agents.wire import Assignment, encode_assignment
from processors.allocation.candidate import HALF_OPEN
from processors.allocation.directory import Directory
from processors.allocation.lost_tasks import LostTasks
from processors.allocation.need import Need
from processors.allocation.pushes import Pushes
from processors.managers.manager import Ask, Effect, OnTrial, Recheck, Send, Settled, Withdraw
from streams.bus import Bus
from streams.codec import encode_command, stamped
from streams.log import Log
from streams.partition import commands_key, partition_of, tasks_key, withdrawn_channel

AGAIN_MAX = 100_000  # tasks of which is counted how often they were asked again: the newest
REPEATS_MAX = 0xFFFF  # of one task, under one taking of its partition's lease

logger = structlog.get_logger(__name__)

Out = dict[str, list[bytes]]


@dataclass(slots=True)
class TaskSender:
    """Sends effects in batches; raises BusUnavailable with nothing forgotten.

    Without a directory nobody is chosen: all tasks go to their roles' streams. `epoch_of` is the
    epoch of our lease on a partition, None where we have none.
    """

    log: Log
    bus: Bus
    partitions: int
    directory: Directory | None = None
    epoch_of: Callable[[int], int | None] = lambda partition: 0
    token: Shown = nothing
    """What the engine shows with its own commands."""
    asked: int = 0
    asked_again: int = 0
    withdrawn: int = 0
    pushes: Pushes | None = field(init=False, default=None)
    _lost: LostTasks = field(init=False)
    _again: OrderedDict[str, int] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.directory is not None:
            self.pushes = Pushes(self.directory, self.directory.clock)
        self._lost = LostTasks(self.log, self.bus, self.pushes)

    async def send(self, effects: Sequence[Effect]) -> None:
        """Send all effects, in order within each stream."""
        out: Out = defaultdict(list)
        checks: list[Recheck] = []
        withdrawn: dict[str, list[bytes]] = defaultdict(list)
        pushes, over = self.pushes, False
        for effect in effects:
            match effect:
                case Ask(assignment, need):
                    self._ask(out, assignment, need)
                    self.asked += 1
                case Send(command):
                    key = commands_key(partition_of(command.root, self.partitions))
                    out[key].append(stamped(encode_command(command), self.token()))
                case Settled(assignment) if pushes is not None:
                    pushes.settle(assignment.message_id)
                    over = True
                case Withdraw(assignment):
                    channel = withdrawn_channel(assignment.tenant, assignment.role)
                    withdrawn[channel].append(assignment.message_id.encode())
                    if pushes is not None:
                        pushes.settle(assignment.message_id)
                        over = True
                case OnTrial(command) if self.directory is not None:
                    if self.directory.circuit(command.root) == HALF_OPEN:
                        key = commands_key(partition_of(command.root, self.partitions))
                        out[key].append(stamped(encode_command(command), self.token()))
                case Recheck():
                    checks.append(effect)
        if checks and (lost := await self._lost.among(checks)):
            for check in lost:
                self._ask_again(out, check.assignment, check.need)
            logger.warning("tasks_lost_with_redis", asked_again=len(lost))
        if over and pushes is not None and pushes.waiting:
            self._retry(out, pushes)
        if out:
            await self.bus.append(out)
        if withdrawn:
            await self.bus.publish(withdrawn)
            self.withdrawn += sum(map(len, withdrawn.values()))

    async def move_on(self) -> None:
        """What lies with agents that are gone goes to others, what has waited goes if it can."""
        pushes = self.pushes
        if pushes is None:
            return
        out: Out = defaultdict(list)
        pushes.sweep()
        orphans = pushes.orphans()
        for given in orphans:
            if self._ours(given.assignment):
                self._ask_again(out, given.assignment, given.need)
            else:
                pushes.settle(given.assignment.message_id)
        if orphans:
            logger.warning("tasks_taken_from_lost_agents", tasks=len(orphans))
        self._retry(out, pushes)
        if out:
            await self.bus.append(out)

    def _ask(self, out: Out, assignment: Assignment, need: Need | None) -> None:
        if need is not None and self.pushes is not None:
            if push := self.pushes.place(assignment, need):
                out[push[0]].append(encode_assignment(push[1]))
            return
        out[tasks_key(assignment.tenant, assignment.role)].append(encode_assignment(assignment))

    def _ask_again(self, out: Out, assignment: Assignment, need: Need | None) -> None:
        """Ask under a higher delivery: what answers to the one before is then refused."""
        message_id = assignment.message_id
        if self.pushes is not None:
            self.pushes.settle(message_id)
        times = min(self._again.pop(message_id, 0) + 1, REPEATS_MAX)
        self._again[message_id] = times
        if len(self._again) > AGAIN_MAX:
            self._again.popitem(last=False)
        epoch = self.epoch_of(partition_of(assignment.execution_id, self.partitions)) or 0
        self._ask(out, replace(assignment, delivery=((epoch << 16) + times) << 8), need)
        self.asked_again += 1

    def _retry(self, out: Out, pushes: Pushes) -> None:
        for key, assignment in pushes.retry(self._ours):
            out[key].append(encode_assignment(assignment))

    def _ours(self, assignment: Assignment) -> bool:
        return self.epoch_of(partition_of(assignment.execution_id, self.partitions)) is not None
