"""Carries out what process managers decide: tasks to their roles' streams, commands to theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from processors.agents.wire import Assignment, decode_assignment, encode_assignment
from processors.managers.manager import Ask, Effect, Recheck, Send
from streams.bus import Bus, id_parts
from streams.codec import Poison, encode_command
from streams.log import WRITER, Log
from streams.partition import commands_key, partition_of, tasks_key

SCAN_ENTRIES_MAX = 100_000  # a longer queue is taken to hold what is looked for

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class TaskSender:
    """Sends effects in batches; raises BusUnavailable with nothing forgotten."""

    log: Log
    bus: Bus
    partitions: int
    asked: int = 0
    asked_again: int = 0
    _missed: set[str] = field(default_factory=set)

    async def send(self, effects: Sequence[Effect]) -> None:
        """Send all effects, in order within each stream."""
        out: dict[str, list[bytes]] = defaultdict(list)
        checks: list[Assignment] = []
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
        for assignment in await self._lost(checks):
            key = tasks_key(assignment.tenant, assignment.role)
            out[key].append(encode_assignment(assignment))
            self.asked_again += 1
        if out:
            await self.bus.append(out)

    async def _lost(self, checks: Sequence[Assignment]) -> list[Assignment]:
        """Those that are neither on their way nor answered, seen twice: work must not be doubled.

        A task leaves its stream when its answer has been published; so while the answers' stream
        has entries that are not committed yet, nothing counts as lost.
        """
        by_role: dict[str, list[Assignment]] = defaultdict(list)
        for assignment in checks:
            by_role[tasks_key(assignment.tenant, assignment.role)].append(assignment)
        absent = []
        for key, group in by_role.items():
            present = await self._present(key)
            if present is not None:
                absent += [one for one in group if one.message_id not in present]
                self._missed.difference_update(
                    one.message_id for one in group if one.message_id in present
                )
        busy = await self._busy({one.reply_to for one in absent})
        lost = []
        for one in absent:
            if one.reply_to in busy:
                continue
            if one.message_id in self._missed:
                self._missed.discard(one.message_id)
                lost.append(one)
            else:
                self._missed.add(one.message_id)
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

    async def _busy(self, keys: set[str]) -> set[str]:
        """The command streams with entries that no commit has covered yet."""
        if not keys:
            return set()
        covered = {
            commands_key(cursor.partition): cursor.stream_offset
            for cursor in await self.log.cursors(WRITER)
        }
        return {
            key for key in keys if id_parts(await self.bus.last_id(key)) > id_parts(covered[key])
        }
