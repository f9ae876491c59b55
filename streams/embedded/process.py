"""Child processes that die with this one, whatever kills it, and what is left of earlier ones."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streams.embedded.account import Account

POLL_S = 0.01
LEFTOVERS_S_MAX = 10.0  # an orphan shuts down by itself, with a last checkpoint; then it is killed
LOG_LINES_SHOWN = 15
PR_SET_PDEATHSIG = 1

# Linux sends a child its parent-death signal when the *thread* that spawned it ends. So one thread
# that lives as long as the process spawns them all, and a server may be started from any other.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-spawner")
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # found before the fork


class ServerFailed(RuntimeError):
    """An embedded server did not come up:"""

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        last = "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:]) or "  (nothing)"
        super().__init__(f"{self.__doc__} {what}. The end of {log}:\n{last}")


def environment() -> dict[str, str]:
    """What a server inherits: no PGOPTIONS and the like, and a locale that cannot differ."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    account: Account | None,
    farewell: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Starts a server; `farewell` is what it is sent when this process dies."""
    parent = os.getpid()

    def tie_to_parent() -> None:  # runs in the child, after the change of account, which unties
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, int(farewell))
            if os.getppid() != parent:
                os._exit(1)  # the parent died before the tie was made

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we stop the servers when we are done
                preexec_fn=tie_to_parent,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )

    return _spawner.submit(start).result()


def wait_for(done: Callable[[], bool], limit_s: float) -> bool:
    """Polls until it is done or the time is up; says which."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def clear_leftovers(program: str, cwd: Path) -> None:
    """Waits for what an earlier, killed run left in this directory, and ends what does not end."""
    if not wait_for(lambda: not _running_in(program, cwd), LEFTOVERS_S_MAX):
        for pid in _running_in(program, cwd):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _running_in(program, cwd), LEFTOVERS_S_MAX)


def _running_in(program: str, cwd: Path) -> list[int]:
    """The processes of this name in this directory; none where there is no /proc to ask."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == program and (
                entry / "cwd"
            ).readlink() == cwd:
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, a zombie, or another user's
    return found
