"""The processes of a chaos run: workers and hosts of agents, forked by one zygote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from processors.settings import Addresses
from tests.chaos.counters import Seen
from tests.chaos.ground import Ground
from tests.chaos.load import ROLES
from tests.processes import is_gone

ROOT = Path(__file__).parents[2]
WORKER_ROLES = ("commands", "managers", "projections")
CLOCKS_S = (0.0, 3_600.0, -3_600.0)  # how wrong each worker's wall clock is
PATIENCE_S = 30.0
POLL_S = 0.02
DIARY_CHARS = 3_000


async def until(done: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until a plain function is true."""
    deadline = monotonic() + patience_s
    while not done():
        assert monotonic() < deadline, f"{what} has not come in {patience_s:g} s"
        await asyncio.sleep(POLL_S)


@dataclass(eq=False)
class Child:
    """One process, by its files: `counts.json` is what it tells, `hits` where it was hit."""

    kind: str
    name: str
    directory: Path
    pid: int = 0
    config: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, Any]:
        """What it has told last; empty before it was ready."""
        try:
            told: dict[str, Any] = json.loads((self.directory / "counts.json").read_text())
        except FileNotFoundError:
            return {}
        return told

    def hits(self) -> list[tuple[str, str]]:
        """At which moments it was hit, and how."""
        path = self.directory / "hits"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    @property
    def alive(self) -> bool:
        """Whether it runs or is stopped."""
        return not is_gone(self.pid)

    @property
    def frozen(self) -> bool:
        """Whether it is stopped by a signal."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def arm(self, moment: str | None, action: str = "stop") -> None:
        """Have it hit when it next comes to this moment; None disarms it."""
        said = {"moment": moment, "action": action} if moment else None
        (self.directory / "arm.json").write_text(json.dumps(said))
        if self.pid:
            self.signal(signal.SIGUSR1)

    async def ready(self) -> None:
        """Wait until it works."""
        await until(lambda: self.counts().get("ready") or not self.alive, f"{self.name}")
        assert self.counts().get("ready"), f"{self.name} ended: {self.diary()}"

    async def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        await until(lambda: not self.alive, f"the end of {self.name}")

    async def finish(self) -> None:
        """End it in order."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        await until(lambda: not self.alive, f"the orderly end of {self.name}")
        assert self.counts().get("ended"), f"{self.name} did not end well: {self.diary()}"

    def diary(self) -> str:
        """The end of what it has logged."""
        path = self.directory / "diary"
        text = path.read_text(errors="replace") if path.exists() else ""
        return f"{self.name} ({self.pid}): {text[-DIARY_CHARS:]}"

    def resources(self) -> dict[str, int]:
        """Its memory in KiB and its open descriptors."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return {"rss": int(rss.split()[1]), "fds": len(os.listdir(f"/proc/{self.pid}/fd"))}


class Fleet:
    """All children that there ever were; those that ended keep their counts."""

    def __init__(self, ground: Ground, directory: Path, lease_s: float, task_lease_s: float):
        self.ground = ground
        self.lease_s = lease_s
        self.task_lease_s = task_lease_s
        self.children: list[Child] = []
        self._directory = directory
        self._zygote: subprocess.Popen[str] | None = None
        self._forking = asyncio.Lock()

    @property
    def workers(self) -> list[Child]:
        """The workers that live."""
        return [c for c in self.children if c.kind == "worker" and c.alive]

    @property
    def hosts(self) -> list[Child]:
        """The hosts of agents that live."""
        return [c for c in self.children if c.kind == "agents" and c.alive]

    def start(self) -> None:
        """Begin the zygote."""
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End everything that is left, however it stands."""
        for child in self.children:
            child.signal(signal.SIGKILL)
        if self._zygote is not None:
            assert self._zygote.stdin is not None
            assert self._zygote.stdout is not None
            self._zygote.stdin.close()
            self._zygote.stdout.close()
            self._zygote.kill()
            self._zygote.wait()

    async def worker(
        self,
        roles: Sequence[str] = WORKER_ROLES,
        mutations: Iterable[str] = (),
        armed: tuple[str, str] | None = None,
        lease_s: float | None = None,
        addresses: Addresses | None = None,
    ) -> Child:
        """A further worker, once it works; not waited for where it is armed."""
        addresses = addresses or self.ground.addresses
        config = {
            "roles": list(roles),
            "mutations": list(mutations),
            "clock_s": CLOCKS_S[len(self.children) % len(CLOCKS_S)],
            "settings": {
                "DATABASE_URL": addresses.database_url,
                "REDIS_URL": addresses.redis_url,
                "lease_s": lease_s or self.lease_s,
            },
        }
        child = await self._fork("worker", config, armed)
        if armed is None:
            await child.ready()
        return child

    async def host(self, name: str | None = None, capacity: int = 20) -> Child:
        """A further host of agents for all roles; a name that was used before comes back."""
        config = {
            "redis_url": self.ground.addresses.redis_url,
            "name": name or f"host-{len(self.children)}",
            "roles": list(ROLES),
            "capacity": capacity,
            "lease_s": self.task_lease_s,
        }
        child = await self._fork("agents", config, None)
        await child.ready()
        return child

    async def _fork(
        self, kind: str, config: dict[str, Any], armed: tuple[str, str] | None
    ) -> Child:
        name = f"{kind}-{len(self.children)}"
        child = Child(kind, name, self._directory / name, config=config)
        child.directory.mkdir()
        if armed:
            child.arm(*armed)
        self.children.append(child)
        line = json.dumps(config | {"kind": kind, "dir": str(child.directory)})
        async with self._forking:
            child.pid = int(await asyncio.to_thread(self._ask, line))
        return child

    def _ask(self, line: str) -> str:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(line + "\n")
        self._zygote.stdin.flush()
        return self._zygote.stdout.readline()

    def seen(self) -> Seen:
        """What all children have counted, the dead ones as well."""
        seen = Seen()
        for child in self.children:
            seen.add_child(child.counts(), child.hits())
        return seen

    def diaries(self) -> str:
        """The ends of all logs."""
        return "\n".join(child.diary() for child in self.children)


@asynccontextmanager
async def fleet(
    on: Ground, *, lease_s: float = 1.0, task_lease_s: float = 1.5
) -> AsyncIterator[Fleet]:
    """No processes yet, and none at the end."""
    with tempfile.TemporaryDirectory(prefix="agentcore-chaos-") as directory:
        made = Fleet(on, Path(directory), lease_s, task_lease_s)
        made.start()
        try:
            yield made
        except BaseException:
            print(made.diaries())  # shown where the test has failed
            raise
        finally:
            made.close()
