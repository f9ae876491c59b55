"""Has agents do tasks: begins them, watches their time, and tells of each end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from types import CoroutineType
from typing import Any

from processors.agents.agent import Pool, Seat
from processors.agents.answers import TaskError
from processors.agents.wire import Assignment
from processors.agents.work import Work

WORKING_AFTER_S = 0.05  # a shorter task's beginning travels with its answer: one command less


class Runner:
    """What runs now on one host."""

    def __init__(
        self,
        *,
        working: Callable[[Work], None],
        ended: Callable[[Work, Any, BaseException | None], None],
        freed: Callable[[Pool, Seat], None],
        opened: Callable[[Assignment], Assignment] = lambda assignment: assignment,
    ) -> None:
        """`working` tells of what takes longer, `ended` of results, `freed` of room.

        `opened` is the task as its agent gets it.
        """
        self.running: set[asyncio.Future[Any]] = set()
        self._working = working
        self._tell = ended
        self._opened = opened
        self._freed = freed
        self._begun: deque[Work] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, work: Work, pool: Pool, seat: Seat) -> None:
        """Have the agent in `seat`, which was taken from its pool, do a task."""
        work.agent_id = seat.agent.agent_id
        work.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            result = seat.agent.handler(self._opened(work.assignment))
        except Exception as error:
            self._tell(work, None, error)
        else:
            if hasattr(result, "__await__"):
                self._follow(work, pool, seat, result)
            else:
                self._tell(work, result, None)
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
        self.running.add(work.task)
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
                self._working(work)
        if self._begun:
            self._timer = loop.call_at(self._begun[0].began + WORKING_AFTER_S, self._say_working)

    def _ended(self, work: Work, pool: Pool, seat: Seat, task: asyncio.Future[Any]) -> None:
        """The handler has ended: tell of it, unless that was done, and of the room."""
        self.running.discard(task)
        if work.deadline is not None:
            work.deadline.cancel()
        error = TaskError("The handler was cancelled.") if task.cancelled() else task.exception()
        if not work.answered:
            self._tell(work, task.result() if error is None else None, error)
        pool.end(seat)
        self._freed(pool, seat)

    def _expire(self, work: Work) -> None:
        """Answer at once; the room is free when the handler has really ended."""
        if work.answered or work.task is None:
            return
        seconds = work.assignment.timeout_seconds
        self._tell(work, None, TimedOut(f"timed out after {seconds:g} s"))
        work.task.cancel()

    def close(self) -> None:
        """Tell of no more beginnings."""
        if self._timer is not None:
            self._timer.cancel()
        self._begun.clear()


class TimedOut(TaskError):
    """The handler took longer than the task allows."""
