"""An event loop in which one seed decides everything: who runs next, and when time passes.

Time is virtual: it stands still while anybody can run, then jumps to the next timer. Real I/O,
threads and processes raise. A process that dies or sleeps is a name whose callbacks are not run any
more, for ever or for a while: nothing of its own code gets to know.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio.events import Handle, TimerHandle
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, NoReturn, TypeVar
from zlib import crc32

PROCESS: ContextVar[str] = ContextVar("process", default="world")
"""In whose name a callback runs; tasks and timers inherit it."""

STEPS_MAX = 3_000_000

T = TypeVar("T")


class Deadlock(Exception):
    """Nobody can run, and no timer will ever wake anybody."""


class SimLoop(asyncio.BaseEventLoop):
    """Runs callbacks in an order drawn from a seed, in virtual time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.history = 0
        """A checksum of all that was decided: equal seeds give equal histories."""
        self._ready: list[Handle] = []  # type: ignore[assignment]
        self._asleep: dict[str, list[Handle]] = {}
        self.set_exception_handler(lambda loop, context: None)

    # Processes ----------------------------------------------------------------------------------

    def sleep(self, process: str) -> None:
        """Nothing of this process runs until `wake`."""
        self._asleep.setdefault(process, [])

    def wake(self, process: str) -> None:
        """The process goes on, and has not noticed anything but the time."""
        self._ready += self._asleep.pop(process, [])

    def asleep(self, process: str) -> bool:
        """Whether the process does not run."""
        return process in self._asleep

    def run_as(self, process: str, start: Callable[[], T]) -> T:
        """Call `start` in the name of a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return context.run(start)

    # The loop -----------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def _run_once(self) -> None:
        scheduled: list[TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self.now):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)
        if not self._ready:
            if not scheduled:
                names = sorted(t.get_name() for t in asyncio.all_tasks(self))
                raise Deadlock(f"at {self.now:.3f} s all wait for each other: {names}")
            self.now = max(self.now, scheduled[0]._when)
            return
        place = self.chance.randrange(len(self._ready))
        handle, self._ready[place] = self._ready[place], self._ready[-1]
        self._ready.pop()
        if handle._cancelled:
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Deadlock(f"after {self.steps} steps and {self.now:.1f} s it still goes on")
        self.history = crc32(b"%d %d %.6f" % (place, len(self._ready), self.now), self.history)
        process = handle._context.get(PROCESS, "world")
        if process in self._asleep:
            self._asleep[process].append(handle)
            return
        handle._run()

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("a simulation has no threads, files or sockets")

    run_in_executor = call_soon_threadsafe = create_connection = getaddrinfo = _refuse  # type: ignore[assignment]
    subprocess_exec = subprocess_shell = create_server = _refuse  # type: ignore[assignment]


def run(seed: int, main: Callable[[SimLoop], Any]) -> Any:
    """Run a coroutine function to its end on a fresh loop; nothing of it is left behind."""
    loop = SimLoop(seed)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        _clean_up(loop)
        loop.close()


def _clean_up(loop: SimLoop) -> None:
    """End whoever still runs or sleeps, dead or alive, so that no coroutine is left half-way."""
    loop.steps = 0
    for process in list(loop._asleep):
        loop.wake(process)
    for _ in range(100):
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=10.0))
