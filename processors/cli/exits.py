"""How a command ends: one sentence for people, one exit code for scripts, never a traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

import typer

from processors.cli import output

T = TypeVar("T")


class Code(IntEnum):
    """Exit codes; they are part of the interface."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4
    INTERRUPTED = 130


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CODES = (
    "[bold]Exit codes[/bold]  0 done · 1 refused, failed or not found (with --json the problem is"
    " on stdout) · 2 wrong usage · 3 no engine or server reachable · 4 timed out · 130 interrupted"
)


class Failed(Exception):
    """A command did not succeed; `code` says to scripts why, `problem` is for --json."""

    def __init__(
        self, sentence: str, code: Code = Code.REFUSED, problem: dict[str, Any] | None = None
    ) -> None:
        self.code = code
        self.problem = problem or {"code": code.name, "detail": sentence}
        super().__init__(sentence)


class NotFound(Failed):
    """What was named does not exist."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, problem={"code": "NOT_FOUND", "detail": sentence})


@contextmanager
def explained(as_json: bool = False) -> Iterator[None]:
    """Turn whatever goes wrong inside into a sentence on stderr and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(Code.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`); a flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Code.OK)
    except Exception as error:
        code, sentence, problem = _explain(error)
        if as_json:
            output.as_json(problem or {"code": code.name, "detail": sentence})
        output.error(sentence)
        sys.exit(code)


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    as_json: bool = False,
    stop_is_success: bool = False,
) -> T:
    """Run a command's coroutine; SIGINT, SIGTERM and SIGHUP cancel it, so that it can clean up.

    A command that runs until it is told to stop has done well when it is: `stop_is_success`.
    """
    import uvloop  # here, since a command that runs nothing needs none

    before = {number: signal.getsignal(number) for number in STOPS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]  # as `nohup` wants it

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in before:
            loop.add_signal_handler(number, task.cancel)
        return await main()

    with explained(as_json):
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(supervised())
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(Code.OK if stop_is_success else Code.INTERRUPTED)
        finally:  # the loop leaves the system's defaults behind
            for number, handler in before.items():
                signal.signal(number, handler)


def _explain(error: Exception) -> tuple[Code, str, dict[str, Any] | None]:
    """Code, sentence and problem of an error; imports late, since most commands end well."""
    while isinstance(error, ExceptionGroup):  # several tasks failed: the first says enough
        error = error.exceptions[0]
    if isinstance(error, Failed):
        return error.code, str(error), error.problem
    from aggregates.problem import Refused
    from processors.running import AlreadyRunning, NotRunning
    from processors.settings import BadSettings

    if isinstance(error, Refused):
        return Code.REFUSED, f"{error.code}: {error.detail}", error.problem()
    if isinstance(error, BadSettings):
        return Code.USAGE, str(error), None
    if isinstance(error, NotRunning):
        return Code.UNREACHABLE, str(error), None
    if isinstance(error, AlreadyRunning):
        return Code.REFUSED, str(error), None
    return _explain_servers(error)


def _explain_servers(error: Exception) -> tuple[Code, str, dict[str, Any] | None]:
    from asyncpg import InterfaceError, PostgresError, UndefinedTableError

    from processors.client import NoAnswer, Rejected
    from processors.supervisor import ChildFailed
    from streams.bus import BusFull, BusUnavailable, MemoryPolicyRefused
    from streams.embedded import DataDirectoryRefused, ServerFailed
    from streams.log import LogUnavailable

    if isinstance(error, Rejected):
        code = error.problem.get("code", "REJECTED")
        return Code.REFUSED, f"{code}: {error}", error.problem
    if isinstance(error, NoAnswer):
        return Code.TIMED_OUT, f"{error} Is a worker running?", None
    if isinstance(error, UndefinedTableError) or "UndefinedTableError" in str(error):
        return Code.UNREACHABLE, "The database has no schema yet: run `orchestrator migrate`.", None
    if isinstance(error, BusFull):
        return Code.UNREACHABLE, str(error), None
    if isinstance(error, BusUnavailable):
        return Code.UNREACHABLE, f"Redis cannot be reached: {_text(error)}", None
    if isinstance(error, (LogUnavailable, PostgresError, InterfaceError)):
        return Code.UNREACHABLE, f"PostgreSQL cannot be used: {_text(error)}", None
    if isinstance(error, DataDirectoryRefused):
        return Code.REFUSED, str(error), None
    if isinstance(error, (MemoryPolicyRefused, ServerFailed, ChildFailed)):
        return Code.UNREACHABLE, str(error), None
    if isinstance(error, (ConnectionError, TimeoutError)):
        return Code.UNREACHABLE, f"A server cannot be reached: {_text(error)}", None
    if os.environ.get("AGENTCORE_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(error)
    return Code.REFUSED, f"{type(error).__name__}: {_text(error)}", None


def _text(error: Exception) -> str:
    """The error in one line; asyncpg's and the system's texts carry no password."""
    return " ".join(str(error).split()) or type(error).__name__
