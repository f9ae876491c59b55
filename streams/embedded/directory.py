"""What a data directory remembers between runs: who holds it, the password and the ports."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
from pathlib import Path
from typing import IO

# Below the range of outgoing connections: a client that keeps trying a port of that range while
# its server is down is in the end given that very port, and the server cannot come back.
PORTS = range(20_000, 32_000)
PORT_TRIES_MAX = 100
LOOPBACK = "127.0.0.1"


class DataDirectoryRefused(RuntimeError):
    """The data directory cannot be used:"""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.__doc__} {reason}.")


def claim(directory: Path, name: str) -> IO[str]:
    """Takes this server's lock in the data directory; closing the file gives it back."""
    try:
        if not directory.exists():
            # Others may pass, not look: when we are root, PostgreSQL's account has to.
            directory.mkdir(parents=True, mode=0o711)
        lock = (directory / f"{name}.lock").open("a+")
    except OSError as error:
        raise DataDirectoryRefused(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DataDirectoryRefused(
            f"{directory} already has its {name} running, held by process {holder}"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def keep_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def password(directory: Path) -> str:
    """The password of both servers, made on first use."""
    path = directory / "password"
    if not path.exists():
        keep_private(path, secrets.token_hex(16))
    return path.read_text()


def port(directory: Path, name: str) -> int:
    """The port of this server: last time's when it is free, so that a printed URL stays valid."""
    path = directory / f"{name}.port"
    remembered = path.read_text() if path.exists() else ""
    if remembered.isdecimal() and _is_free(int(remembered)):
        return int(remembered)
    for candidate in random.sample(PORTS, PORT_TRIES_MAX):
        if _is_free(candidate):
            path.write_text(str(candidate))
            return candidate
    raise DataDirectoryRefused(f"{directory}: no free port among {PORT_TRIES_MAX} tried for {name}")


def _is_free(candidate: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((LOOPBACK, candidate))
        except OSError:
            return False
    return True
