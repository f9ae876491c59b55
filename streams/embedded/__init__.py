"""PostgreSQL and Redis for a bare machine: no Docker, no system service, no configuration.

Both come as binaries inside Python wheels and run as children of this process: they start with it,
end with it (also when it is SIGKILLed), and keep their data in one directory between runs. Meant
for development, tests and small installations; the engine itself only ever sees two URLs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streams.embedded.account import SYSTEM_HOME
from streams.embedded.directory import DataDirectoryRefused
from streams.embedded.postgres import EmbeddedPostgres
from streams.embedded.process import ServerFailed
from streams.embedded.redis import EmbeddedRedis

__all__ = [
    "DataDirectoryRefused",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "ServerFailed",
    "Servers",
    "default_data_dir",
    "embedded",
]


@dataclass(frozen=True)
class Servers:
    """Two servers that run, and the URLs at which they answer."""

    database_url: str
    redis_url: str
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis


@contextmanager
def embedded(data_dir: Path) -> Iterator[Servers]:
    """Runs both servers on this data directory for as long as the context lasts."""
    postgres, redis = EmbeddedPostgres(data_dir), EmbeddedRedis(data_dir)
    try:
        redis.launch()  # Redis loads its data while PostgreSQL prepares its own
        postgres.launch()
        redis.await_ready()
        postgres.await_ready()
        yield Servers(postgres.url, redis.url, postgres, redis)
    finally:
        try:
            redis.stop()
        finally:
            postgres.stop()


def default_data_dir() -> Path:
    """`$AGENTCORE_HOME`, else the first customary place that this user can write to."""
    if chosen := os.environ.get("AGENTCORE_HOME"):
        return Path(chosen).expanduser().absolute()
    for place in _customary_places():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue  # a service account whose home does not exist, a read-only file system
        if os.access(place, os.W_OK | os.X_OK):
            return place
    raise DataDirectoryRefused("none of the customary places is writable; set AGENTCORE_HOME")


def _customary_places() -> Iterator[Path]:
    if os.geteuid() == 0:
        yield SYSTEM_HOME  # not /root, which PostgreSQL's account could not enter
    else:
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        yield Path(os.path.expanduser(data)).absolute() / "agentcore"
    yield Path.cwd() / ".agentcore"
