"""Redis as a child process, with its append-only file: what is acknowledged outlives a restart."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import ClassVar

from streams.embedded.binaries import find_redis
from streams.embedded.directory import LOOPBACK, keep_private
from streams.embedded.process import clear_leftovers
from streams.embedded.server import Server

PING_S_MAX = 1.0

# No snapshots beside the append-only file, and never an eviction: a mirror or a command stream
# that Redis dropped to make room would be a hole that nobody sees.
CONFIGURATION = """\
bind {address}
port {port}
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class EmbeddedRedis(Server):
    """Redis on the loopback address, as the account that runs us."""

    name: ClassVar[str] = "redis"
    farewell: ClassVar[signal.Signals] = signal.SIGTERM  # writes out its file, then ends

    @property
    def url(self) -> str:
        """Where it answers, with the password."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def home(self) -> Path:
        """Its directory."""
        return self.data_dir / self.name

    def _settle(self) -> Path:
        self.home.mkdir(mode=0o700, exist_ok=True)
        clear_leftovers("redis-server", self.home)
        return self.home

    def _command(self) -> list[str | Path]:
        values = {"address": LOOPBACK, "port": self.port, "password": self.password}
        keep_private(self.home / "redis.conf", CONFIGURATION.format(**values))
        return [find_redis(), "redis.conf"]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), PING_S_MAX) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return b"+PONG" in connection.recv(64)
        except OSError:  # not listening yet; while it loads its data it answers, but not +PONG
            return False
