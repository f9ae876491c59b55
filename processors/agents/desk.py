"""Where tasks are done: from an entry that was read to the answer that is sent.

A task that comes twice is done once: it joins the one in hand, or gets its answer again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import CoroutineType
from typing import Any

import structlog

from processors.agents import answers
from processors.agents.agent import Pool, Role, Seat
from processors.agents.answers import TaskError
from processors.agents.outbox import Memory, Outbox
from processors.agents.wire import Assignment, decode_assignment
from streams.codec import Poison

logger = structlog.get_logger(__name__)

WORKING_AFTER_S = 0.05  # a shorter task's beginning travels with its answer: one command less
CLEAN_UP_S = 1.0  # what a cancelled handler may take


@dataclass(slots=True)
class Counts:
    """What a host has done since it began."""

    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    repeated: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class Work:
    """A task in hand, from its first delivery to its answer."""

    assignment: Assignment
    message_id: str
    entries: list[tuple[bytes, bytes]]
    agent_id: str = ""
    began: float = 0.0
    started_at: str = ""
    task: asyncio.Future[Any] | None = None
    deadline: asyncio.TimerHandle | None = None
    answered: bool = False


class Desk:
    """The tasks in hand of one host."""

    def __init__(self, outbox: Outbox) -> None:
        self.counts = Counts()
        self.in_hand: dict[str, Work] = {}
        self.made_room: Callable[[], None] = lambda: None
        self._outbox = outbox
        self._memory = Memory()
        self._crowded: dict[Role, None] = {}
        self._running: set[asyncio.Future[Any]] = set()
        self._begun: deque[Work] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, role: Role, entry: bytes, raw: bytes | None) -> None:
        """Do the task of an entry, now or when there is room."""
        if self._closed:  # it stays pending
            return
        try:
            if raw is None:
                raise Poison("MISSING_FIELD: The entry has no field `message`, or was deleted.")
            assignment = decode_assignment(raw)
        except Poison as poison:
            self._refuse(role, entry, raw, str(poison))
            return
        message_id = assignment.message_id
        if work := self.in_hand.get(message_id):
            if (role.stream, entry) not in work.entries:
                work.entries.append((role.stream, entry))
                self.counts.repeated += 1
            return
        if given := self._memory.get(message_id):
            self.counts.repeated += 1
            self._outbox.answer(assignment.reply_to, given, role.stream, entry)
            return
        work = Work(assignment, message_id, [(role.stream, entry)])
        self.in_hand[message_id] = work
        pool = None if role.waiting else role.pool()
        if pool is not None:
            self._begin(work, pool)
        else:
            role.waiting.append(work)
            self._crowded[role] = None

    def _refuse(self, role: Role, entry: bytes, raw: bytes | None, reason: str) -> None:
        """The one place for entries that are no tasks; whoever keeps dead letters hooks in here."""
        self.counts.refused += 1
        size = len(raw or b"")
        logger.warning("task_refused", stream=role.stream.decode(), reason=reason, bytes=size)
        self._outbox.settle(role.stream, entry)

    def _begin(self, work: Work, pool: Pool) -> None:
        seat = pool.take()
        work.agent_id = seat.agent.agent_id
        work.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            result = seat.agent.handler(work.assignment)
        except Exception as error:
            self._fail(work, error)
        else:
            if hasattr(result, "__await__"):
                self._follow(work, pool, seat, result)
            else:
                self._complete(work, result)
        pool.put(seat)

    def _follow(self, work: Work, pool: Pool, seat: Seat, result: Awaitable[Any]) -> None:
        """A task that takes its time.

        It gets an asyncio task always: what is driven by hand up to its first pause would have
        this host's task as the current one, and its time-outs would cancel the host.
        """
        loop = asyncio.get_running_loop()
        if type(result) is CoroutineType:
            work.task = loop.create_task(result)
        else:
            work.task = asyncio.ensure_future(result)
        self._running.add(work.task)
        work.task.add_done_callback(partial(self._ended, work, pool, seat))
        pool.begin(seat)
        work.began = loop.time()
        seconds = work.assignment.timeout_seconds
        if seconds is not None:
            work.deadline = loop.call_at(work.began + seconds, self._expire, work)
        self._begun.append(work)
        if self._timer is None:
            self._timer = loop.call_at(work.began + WORKING_AFTER_S, self._say_working)

    def _say_working(self) -> None:
        """Tell the engine of what has outlasted WORKING_AFTER_S; all wait alike, so in order."""
        self._timer = None
        loop = asyncio.get_running_loop()
        due = loop.time() - WORKING_AFTER_S
        while self._begun and self._begun[0].began <= due:
            work = self._begun.popleft()
            if not work.answered:
                said = answers.started(work.assignment, work.agent_id)
                if said is not None:
                    self._outbox.send(work.assignment.reply_to, said)
        if self._begun:
            self._timer = loop.call_at(self._begun[0].began + WORKING_AFTER_S, self._say_working)

    def _ended(self, work: Work, pool: Pool, seat: Seat, task: asyncio.Future[Any]) -> None:
        """The handler has ended: answer, unless that was done, and use the room."""
        self._running.discard(task)
        if work.deadline is not None:
            work.deadline.cancel()
        error = TaskError("The handler was cancelled.") if task.cancelled() else task.exception()
        if not work.answered:
            if error is None:
                self._complete(work, task.result())
            else:
                self._fail(work, error)
        pool.end(seat)
        was_full = pool.free == 1
        if (self._crowded and self._admit()) or was_full:
            self.made_room()

    def _admit(self) -> bool:
        """Begin what was read and waits; true where a role has no more of it."""
        crowded = len(self._crowded)
        for role in [] if self._closed else list(self._crowded):
            while role.waiting and (pool := role.pool()):
                self._begin(role.waiting.popleft(), pool)
            if not role.waiting:
                del self._crowded[role]
        return len(self._crowded) < crowded

    def _expire(self, work: Work) -> None:
        """Answer at once; the room is free when the handler has really ended."""
        if work.answered or work.task is None:
            return
        self.counts.timed_out += 1
        self._fail(work, TaskError(f"timed out after {work.assignment.timeout_seconds:g} s"))
        work.task.cancel()

    def _complete(self, work: Work, output: Any) -> None:
        try:
            said = answers.completed(work.assignment, work.agent_id, output, work.started_at)
        except TaskError as error:
            self._fail(work, error)
        else:
            self.counts.completed += 1
            self._answer(work, said)

    def _fail(self, work: Work, error: BaseException) -> None:
        self.counts.failed += 1
        self._answer(work, answers.failed(work.assignment, work.agent_id, error, work.started_at))

    def _answer(self, work: Work, said: bytes) -> None:
        work.answered = True
        del self.in_hand[work.message_id]
        self._memory.put(work.message_id, said)
        entries = work.entries
        self._outbox.answer(work.assignment.reply_to, said, *entries[0])
        for stream, entry in entries[1:]:
            self._outbox.settle(stream, entry)

    def entries(self) -> dict[bytes, list[bytes]]:
        """The entries of what is in hand, by stream."""
        entries: dict[bytes, list[bytes]] = {}
        for work in self.in_hand.values():
            for stream, entry in work.entries:
                entries.setdefault(stream, []).append(entry)
        return entries

    async def close(self, grace_s: float) -> None:
        """Let what runs finish for so long; what then remains is left pending."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        if self._timer is not None:
            self._timer.cancel()
        for work in self.in_hand.values():
            work.answered = True
            if work.task is not None:
                work.task.cancel()
        self.in_hand.clear()
        if self._running:
            await asyncio.wait(self._running, timeout=CLEAN_UP_S)
