"""PostgreSQL as a child process, as durable as any: an acknowledged commit outlives a kill -9."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from streams.embedded.account import server_account, settle
from streams.embedded.binaries import find_postgres, within_reach
from streams.embedded.directory import LOOPBACK, keep_private
from streams.embedded.process import ServerFailed, clear_leftovers, environment
from streams.embedded.server import Server

OWNER = "agentcore"
DATABASE = "agentcore"
PREPARE_S_MAX = 120.0  # half a second on a disk of today; this is for a memory card
PID_FILE_STATUS_LINE = 7  # of postmaster.pid, where pg_ctl looks as well

CLUSTER = (
    f"--username={OWNER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--no-instructions",
)

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, data directories not
    "fsync": "on",
    "synchronous_commit": "on",  # without it kill -9 lost 26 acknowledged commits of 31,700
    "wal_level": "minimal",  # nobody replicates from here, and COPY into a new table is cheaper
    "max_wal_senders": "0",  # what `minimal` asks for
    "max_wal_size": "2GB",  # checkpoints by time, not by every burst of appends
    "shared_buffers": "256MB",  # fits beside the engine on a machine with 2 GB
    "max_connections": "200",  # several workers of one machine, and a person with psql
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",  # the log is for what went wrong
}


class EmbeddedPostgres(Server):
    """PostgreSQL on the loopback address; as root it runs as an unprivileged account."""

    name: ClassVar[str] = "postgres"
    farewell: ClassVar[signal.Signals] = signal.SIGINT  # its fast shutdown: clients are dropped

    @property
    def url(self) -> str:
        """Where it answers, with the password; for asyncpg and psql alike."""
        return f"postgresql://{OWNER}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def home(self) -> Path:
        """Its directory; a link to it where root's data directory is closed to its account."""
        return (self.data_dir / self.name).resolve()

    def _settle(self) -> Path:
        self.account = server_account()
        home = settle(self.data_dir / self.name, self.account)
        self._program = within_reach(find_postgres(), home, self.account)
        data = home / "data"
        if not data.exists():
            self._create(data)
        clear_leftovers("postgres", data)
        # We hold the lock and nobody runs here, so the file is stale, though its number may have
        # gone to another process since, which PostgreSQL would take for its predecessor.
        (data / "postmaster.pid").unlink(missing_ok=True)
        return data

    def _command(self) -> list[str | Path]:
        settings = SETTINGS | {"port": str(self.port)}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [self._program, "-D", self.home / "data", *arguments]

    def _answers(self) -> bool:
        try:
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > PID_FILE_STATUS_LINE and (
            lines[0] == str(self.pid) and lines[PID_FILE_STATUS_LINE].strip() == "ready"
        )

    def _create(self, data: Path) -> None:
        """Makes the cluster beside its place and moves it there when it is whole."""
        fresh, secret = data.with_name("unfinished"), data.with_name("password")
        shutil.rmtree(fresh, ignore_errors=True)
        keep_private(secret, self.password)
        if self.account is not None:
            shutil.chown(secret, self.account.uid, self.account.gid)
        try:
            self._run(
                [self._program.with_name("initdb"), "-D", fresh, *CLUSTER, f"--pwfile={secret}"]
            )
        finally:
            secret.unlink()
        self._run(
            [self._program, "--single", "-D", fresh, "-c", "log_checkpoints=off", "postgres"],
            f"CREATE DATABASE {DATABASE}\n",
        )
        fresh.rename(data)

    def _run(self, command: Sequence[str | Path], text: str = "") -> None:
        with self.log.open("ab") as output:
            done = subprocess.run(
                command,
                input=text.encode(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=environment(),
                timeout=PREPARE_S_MAX,
                check=False,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )
        if done.returncode != 0:
            what = f"{Path(command[0]).name} ended with status {done.returncode}"
            raise ServerFailed(what, self.log)
