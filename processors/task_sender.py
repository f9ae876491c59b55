"""Carries out what process managers decide: tasks to their roles' streams, commands to theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from processors.agents.wire import Assignment, decode_assignment, encode_assignment
from processors.managers.manager import Ask, Effect, Recheck, Send, Withdraw
from streams.bus import Bus, id_parts
from streams.codec import Poison, encode_command
from streams.log import WRITER, Log
from streams.partition import commands_key, partition_of, tasks_key, withdrawn_channel

SCAN_ENTRIES_MAX = 100_000  # a longer queue is taken to hold what is looked for
MISSED_MAX = 100_000  # tasks that were missed once and answered since are forgotten then

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class TaskSender:
    """Sends effects in batches; raises BusUnavailable with nothing forgotten."""

    log: Log
    bus: Bus
    partitions: int
    asked: int = 0
    asked_again: int = 0
    withdrawn: int = 0
    _missed: dict[str, str] = field(default_factory=dict)
    """Tasks that were not on their way when looked for last, and the newest answer then."""

    async def send(self, effects: Sequence[Effect]) -> None:
        """Send all effects, in order within each stream."""
        out: dict[str, list[bytes]] = defaultdict(list)
        checks: list[Assignment] = []
        withdrawn: dict[str, list[bytes]] = defaultdict(list)
        for effect in effects:
            match effect:
                case Ask(assignment):
                    key = tasks_key(assignment.tenant, assignment.role)
                    out[key].append(encode_assignment(assignment))
                    self.asked += 1
                case Send(command):
                    key = commands_key(partition_of(command.root, self.partitions))
                    out[key].append(encode_command(command))
                case Recheck(assignment):
                    checks.append(assignment)
                case Withdraw(assignment):
                    channel = withdrawn_channel(assignment.tenant, assignment.role)
                    withdrawn[channel].append(assignment.message_id.encode())
        for assignment in await self._lost(checks):
            key = tasks_key(assignment.tenant, assignment.role)
            out[key].append(encode_assignment(assignment))
            self.asked_again += 1
        if out:
            await self.bus.append(out)
        if withdrawn:
            await self.bus.publish(withdrawn)
            self.withdrawn += sum(map(len, withdrawn.values()))

    async def _lost(self, checks: Sequence[Assignment]) -> list[Assignment]:
        """Those that are neither on their way nor answered, seen twice: work must not be doubled.

        A task leaves its stream in the instant that its answer comes into another one. So one that
        was missed is lost if it is still open when that other stream's newest entry of the first
        look has been committed.
        """
        by_role: dict[str, list[Assignment]] = defaultdict(list)
        for assignment in checks:
            by_role[tasks_key(assignment.tenant, assignment.role)].append(assignment)
        absent = []
        for key, group in by_role.items():
            present = await self._present(key)
            for one in group:
                if present is None or one.message_id in present:
                    self._missed.pop(one.message_id, None)
                else:
                    absent.append(one)
        if not absent:
            return []
        newest = {key: await self.bus.last_id(key) for key in {one.reply_to for one in absent}}
        covered = {
            commands_key(cursor.partition): id_parts(cursor.stream_offset)
            for cursor in await self.log.cursors(WRITER)
        }
        lost = []
        if len(self._missed) > MISSED_MAX:
            self._missed.clear()
        for one in absent:
            first = self._missed.get(one.message_id)
            if first is None:
                self._missed[one.message_id] = newest[one.reply_to]
            elif id_parts(first) <= covered[one.reply_to]:
                del self._missed[one.message_id]
                lost.append(one)
        if lost:
            logger.warning("tasks_lost_with_redis", asked_again=len(lost))
        return lost

    async def _present(self, key: str) -> set[str] | None:
        """The message ids that wait in a stream or are in work; None where it is too long."""
        present: set[str] = set()
        async for _, raw in self.bus.scan(key):
            try:
                present.add(decode_assignment(raw).message_id)
            except Poison:
                continue
            if len(present) >= SCAN_ENTRIES_MAX:
                return None
        return present
