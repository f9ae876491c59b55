"""A process that has imported the engine and forks children on demand, in a hundredth of the time.

    python -m tests.chaos.zygote

It reads one line of JSON for each child: {"kind": "worker"|"agents", "dir": …, …}, and answers with
the child's process id. Its children die with it, and it dies with whoever holds its input.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.chaos import agents, worker

PR_SET_PDEATHSIG = 1
KINDS = {"worker": worker.main, "agents": agents.main}


def main() -> None:
    """Fork a child for each line, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody needs to be reaped
    for line in sys.stdin.buffer:
        told = json.loads(line)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            child(told, parent)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def child(told: dict[str, Any], parent: int) -> None:
    """Be what was asked for, until SIGTERM; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        directory = Path(told["dir"])
        diary = os.open(directory / "diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((0, null), (1, diary), (2, diary)):
            os.dup2(target, descriptor)
        asyncio.run(KINDS[told["kind"]](told))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
