"""Which tasks were lost: neither on their way nor answered, or with an agent that is gone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from processors.agents.wire import Assignment, decode_assignment
from processors.allocation.pushes import Pushes
from processors.managers.manager import Recheck
from streams.bus import Bus, id_parts
from streams.codec import Poison
from streams.log import WRITER, Log
from streams.partition import commands_key, pushed_key, tasks_key

SCAN_ENTRIES_MAX = 100_000  # a longer queue is taken to hold what is looked for
MISSED_MAX = 100_000  # tasks that were missed once and answered since are forgotten, oldest first

Present = dict[str, Assignment]
"""What waits in a stream or is in work, by message id."""


class LostTasks:
    """Looks for tasks in the streams where they should be."""

    def __init__(self, log: Log, bus: Bus, pushes: Pushes | None) -> None:
        self._log = log
        self._bus = bus
        self._pushes = pushes
        self._missed: OrderedDict[str, str] = OrderedDict()
        """Tasks that were not on their way when looked for last, and the newest answer then."""

    async def among(self, checks: Sequence[Recheck]) -> list[Recheck]:
        """Those that are to be asked again; work must not be doubled, so a miss counts twice.

        A task leaves its stream in the instant that its answer comes into another one. So one that
        was missed is lost if it is still open when that other stream's newest entry of the first
        look has been committed. A task that lies with an agent that is gone is lost at once: its
        answer, should there ever be one, will be refused.
        """
        places = [self._places(check) for check in checks]
        scanned = {key: await self._present(key) for key in {k for keys in places for k in keys}}
        lost, absent = [], []
        for check, keys in zip(checks, places, strict=True):
            message_id = check.assignment.message_id
            if not keys or any(scanned[key] is None for key in keys):
                self._missed.pop(message_id, None)
                continue
            entries = [entry for key in keys if (entry := (scanned[key] or {}).get(message_id))]
            if not entries:
                absent.append(check)
                continue
            self._missed.pop(message_id, None)
            if not self._in_hand(check, entries):
                lost.append(check)
        return [*lost, *(await self._twice(absent) if absent else ())]

    async def _twice(self, absent: Sequence[Recheck]) -> list[Recheck]:
        keys = {check.assignment.reply_to for check in absent}
        newest = {key: await self._bus.last_id(key) for key in keys}
        covered = {
            commands_key(cursor.partition): id_parts(cursor.stream_offset)
            for cursor in await self._log.cursors(WRITER)
        }
        lost = []
        for check in absent:
            message_id, reply_to = check.assignment.message_id, check.assignment.reply_to
            first = self._missed.get(message_id)
            if first is None:
                self._missed[message_id] = newest[reply_to]
            elif id_parts(first) <= covered[reply_to]:
                del self._missed[message_id]
                lost.append(check)
        while len(self._missed) > MISSED_MAX:
            self._missed.popitem(last=False)
        return lost

    def _places(self, check: Recheck) -> list[str]:
        """Where a task may be; nowhere if it waits here, or if nobody knows who is there."""
        one, pushes = check.assignment, self._pushes
        role = tasks_key(one.tenant, one.role)
        if pushes is None or check.need is None:
            return [role]
        if pushes.waits(one.message_id) or not pushes.directory.fresh:
            return []
        if (host := pushes.host_of(one.message_id)) is not None:
            return [pushed_key(host), role]  # a host hands back what its agents cannot do
        return [role, *(pushed_key(h) for h in pushes.directory.hosts_of(one.tenant, one.role))]

    def _in_hand(self, check: Recheck, entries: Iterable[Assignment]) -> bool:
        """Whether somebody who is there has the task; what another process pushed is noted."""
        pushes = self._pushes
        for entry in entries:
            if pushes is None:
                return True
            if entry.agent is None:
                pushes.settle(entry.message_id)
                return True
            if pushes.host_of(entry.message_id) is not None:
                if not pushes.orphaned(entry.message_id):
                    return True
            elif check.need is None or pushes.adopt(entry, check.need, entry.agent):
                return True
        return False

    async def _present(self, key: str) -> Present | None:
        """What a stream holds; None where it is too long."""
        present: Present = {}
        async for _, raw in self._bus.scan(key):
            try:
                entry = decode_assignment(raw)
            except Poison:
                continue
            present[entry.message_id] = entry
            if len(present) >= SCAN_ENTRIES_MAX:
                return None
        return present
