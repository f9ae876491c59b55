"""How commands find an engine that `orchestrator up` runs: a small locked file in its data.

The lock, not the content, says that the engine lives: the kernel lets go of it however `up` ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from processors.settings import Addresses, Settings

FILE = "running.json"
FILE_BYTES_MAX = 4_096
LOCK_S = 1.0  # a command that looks whether the file is locked holds it for a moment itself


class AlreadyRunning(Exception):
    """Another engine runs in this data directory."""


class NotRunning(Exception):
    """No engine was found: set DATABASE_URL and REDIS_URL, or start `orchestrator up`."""


def find(settings: Settings) -> Addresses:
    """The servers to talk to: those that were given, else those of a running `up`."""
    if settings.addresses is not None:
        return settings.addresses
    found = announced(home(settings))
    if found is None:
        raise NotRunning(NotRunning.__doc__)
    return found


def home(settings: Settings) -> Path:
    """Where embedded servers keep their data."""
    if settings.home is not None:
        return settings.home.expanduser().absolute()
    from streams.embedded import default_data_dir

    return Path(default_data_dir())


@contextmanager
def announce(directory: Path, addresses: Addresses) -> Iterator[None]:
    """Hold the file while the engine runs; raises AlreadyRunning."""
    path = directory / FILE
    descriptor = _lock(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, orjson.dumps({"pid": os.getpid()} | addresses._asdict()))
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def announced(directory: Path) -> Addresses | None:
    """The servers of the engine that runs in this directory, None where none does."""
    try:
        descriptor = os.open(directory / FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it: what is written there is of an engine that was killed
    except BlockingIOError:
        said = _read(descriptor)
        return Addresses(said["database_url"], said["redis_url"]) if said else None
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """The open, locked file; its owner may unlink it, so the lock counts only on the named one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(descriptor, 0o600)
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                said = _read(descriptor) or {}
                owner = f"process {said['pid']}" if said else "another process"
                os.close(descriptor)
                text = f"An engine runs in {path.parent} already ({owner}); stop that one first."
                raise AlreadyRunning(text) from None
        os.close(descriptor)
        time.sleep(0.02)


def _read(descriptor: int) -> dict[str, str] | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        said = orjson.loads(os.read(descriptor, FILE_BYTES_MAX))
    except orjson.JSONDecodeError:
        return None  # it is being written
    return said if isinstance(said, dict) else None
