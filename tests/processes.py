"""Other processes for tests: one that runs the embedded servers, and whether one has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
GONE_S_MAX = 10.0  # an orphaned server writes a last checkpoint; the machine may be busy

# Changes its user only after its imports, and knows the encoding that sockets look up when first
# used, since the interpreter may lie in root's home.
PARENT = """
import encodings.idna, os, signal, sys, time
from pathlib import Path
from streams.embedded import embedded

# A shell that starts its jobs in the background has them ignore SIGINT, and we inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

data_dir, *account = sys.argv[1:]
if account:
    os.setgroups([])
    os.setgid(int(account[1]))
    os.setuid(int(account[0]))
with embedded(Path(data_dir)) as servers:
    print(servers.postgres.pid, servers.redis.pid, servers.database_url, servers.redis_url)
    sys.stdout.flush()
    time.sleep(60)
"""


@contextmanager
def parent(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that runs both servers, and what it printed: their process ids and their URLs."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line[:1].isdecimal(), line + process.communicate()[0]
            yield process, line.split()
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    """Whether it has ended; a zombie has, though nobody may reap it in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        pass  # ended, or a system without /proc
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until_gone(*pids: int) -> None:
    """Fails when one of these processes still runs after a while."""
    deadline = time.monotonic() + GONE_S_MAX
    while alive := [pid for pid in pids if not is_gone(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.02)


def owner(pid: int) -> int:
    """The user id that a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid
