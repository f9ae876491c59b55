"""Runs the engine's processes as children: starts, restarts, stops them, and leaves none behind.

A child is in a session of its own, so that Ctrl-C reaches only us and we stop them in order; the
kernel kills it when we die, however we die.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

BACKOFF_S = 0.25  # before the first restart; doubles with every one after it
BACKOFF_S_MAX = 15.0
HEALTHY_S = 30.0  # who has run for so long starts again without waiting
STOP_S = 5.0  # stopping takes about a second; a child that hangs is killed
LOG_TAIL_BYTES = 2_000
PR_SET_PDEATHSIG = 1
SUPERVISED = "AGENTCORE_SUPERVISED"
"""Set for children: what there is to say once, whoever started them says."""

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # found before the fork


class ChildFailed(Exception):
    """One of the engine's processes does not stay up."""


@dataclass(slots=True)
class _Child:
    name: str
    arguments: tuple[str, ...]
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """A few child processes, each `python -m processors …` with our servers in its environment.

    `log_dir` None lets them write to our stderr; `restarts_max` None restarts them for ever; each
    restart is reported.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log_dir: Path | None = None,
        restarts_max: int | None = None,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._environment = {**os.environ, **environment, SUPERVISED: "1"}
        self._log_dir = log_dir
        self._restarts_max = restarts_max
        self._report = report
        self._children: list[_Child] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._failure.cancel()
        await self.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Begin to keep a child running; `arguments` are a sub-command and its options."""
        child = _Child(name, arguments)
        child.keeper = asyncio.create_task(self._keep(child), name=f"supervise {name}")
        self._children.append(child)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that run now, by name."""
        running = ((child.name, child.process) for child in self._children)
        return {name: process.pid for name, process in running if process is not None}

    async def failed(self) -> None:
        """Wait until a child was restarted too often; raises ChildFailed then."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Stop all children, the last one first; returns when none is left."""
        for child in reversed(self._children):
            if child.keeper is not None:
                child.keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await child.keeper
        running = [c.process for c in reversed(self._children) if c.process is not None]
        self._children.clear()
        try:
            await asyncio.gather(*(_stop(process) for process in running))
        finally:  # also when we are told to hurry
            for process in running:
                _signal(process, signal.SIGKILL)

    async def _keep(self, child: _Child) -> None:
        delay_s, restarts = BACKOFF_S, 0
        while True:
            began = time.monotonic()
            child.process = await self._spawn(child)
            code = await child.process.wait()
            child.process = None
            if time.monotonic() - began >= HEALTHY_S:
                delay_s, restarts = BACKOFF_S, 0
            elif restarts == self._restarts_max:
                self._give_up(child, code)
                return
            restarts += 1
            self._report(f"{child.name} ended with {code}; it starts again in {delay_s:g} s.")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, BACKOFF_S_MAX)

    async def _spawn(self, child: _Child) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as stack:
            output: IO[bytes] | None = None
            if self._log_dir is not None:
                self._log_dir.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(self._log(child).open("ab"))
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies in the current directory must not be imported in our place
                "-m",
                "processors",
                *child.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )

    def _log(self, child: _Child) -> Path:
        assert self._log_dir is not None
        return self._log_dir / f"{child.name}.log"

    def _give_up(self, child: _Child, code: int) -> None:
        tail = ""
        if self._log_dir is not None:
            with self._log(child).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                tail = log.read().decode(errors="replace").rpartition("\n\n")[2].strip()
        if not self._failure.done():
            text = f"The process {child.name} ended with {code} again and again."
            self._failure.set_exception(ChildFailed(f"{text}\n{tail}".strip()))


async def _stop(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the child and what it started; its session is its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _die_with(parent: int) -> Callable[[], None]:
    """What ties a child to our main thread, which spawns it; run in the child."""

    def tie() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != parent:
                os._exit(1)  # the parent died before the tie was made

    return tie
