"""The life of one embedded server: launched, awaited, stopped, killed, and started again."""

from __future__ import annotations

import atexit
import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, ClassVar

from streams.embedded import directory
from streams.embedded.account import Account
from streams.embedded.process import ServerFailed, spawn, wait_for

START_S_MAX = 60.0  # recovery after a crash replays up to max_wal_size, or the append-only file
STOP_S_MAX = 20.0  # a last checkpoint on a slow disk


class Server(ABC):
    """One server on its part of a data directory; the port and the data survive a restart."""

    name: ClassVar[str]
    farewell: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.log = self.data_dir / f"{self.name}.log"
        self.account: Account | None = None
        self._port: int | None = None
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it answers, with the password; known once it was launched."""

    @abstractmethod
    def _settle(self) -> Path:
        """Makes its directory, in which it runs, and clears what a killed run left there."""

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """What to run; the port is known by now."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes connections."""

    @property
    def port(self) -> int:
        """Where it listens on the loopback address."""
        if self._port is None:
            raise RuntimeError(f"{self.name} was never launched, so it has no port yet")
        return self._port

    @property
    def password(self) -> str:
        """Its password, kept in the data directory."""
        return directory.password(self.data_dir)

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Launches it and waits until it answers."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Starts the process without waiting; does nothing when it runs already."""
        if self.pid is not None:
            return
        atexit.register(self.stop)  # where the system does not tie a child's life to its parent's
        try:
            self._lock = self._lock or directory.claim(self.data_dir, self.name)
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))  # two runs are kept, not all
            cwd = self._settle()
            self._port = self._port or directory.port(self.data_dir, self.name)
            command = self._command()
            self._process = spawn(
                command, log=self.log, cwd=cwd, account=self.account, farewell=self.farewell
            )
        except BaseException:
            self.stop()
            raise

    def await_ready(self) -> None:
        """Returns once it answers; raises with the end of its log when it does not come up."""
        if not wait_for(lambda: self.pid is None or self._answers(), START_S_MAX):
            self.kill()
            self.stop()
            raise ServerFailed(f"{self.name} did not answer within {START_S_MAX:.0f} s", self.log)
        if self.pid is None:
            status = self._process.returncode if self._process else None
            self.stop()
            raise ServerFailed(f"{self.name} ended with status {status}", self.log)

    def stop(self) -> None:
        """Ends it in order, by force when it does not end; then the data directory is free."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(self.farewell)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Ends it as a crash would, and reaps it: an unreaped one keeps its pid file alive."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
