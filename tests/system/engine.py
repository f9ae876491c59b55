"""Engines for tests: a worker with its agents in this process, and workers as real processes."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg

from processors.access.own import Shown, nothing
from processors.agents import Agent, AgentHost, simulated_agents
from processors.app import ROLES, Worker
from processors.client import Client
from processors.command_processor import CommandProcessor
from processors.process_manager import ProcessManager
from processors.settings import Addresses, Settings
from processors.worker import GC_ALLOCATIONS
from streams.partition import partition_of
from streams.sealing.keyring import Keyring
from streams.transport import running

ROOT = Path(__file__).parents[2]
WORKLOADS = ROOT.parent / "shared" / "workloads"
PATIENCE_S = 30.0
DIARY_CHARS = 10_000

T = TypeVar("T")


async def until(
    condition: Callable[[], Awaitable[T]], what: str = "", patience_s: float = PATIENCE_S
) -> T:
    """What `condition` answers once that is true of anything; fails after a while."""
    deadline = monotonic() + patience_s
    while not (answer := await condition()):
        assert monotonic() < deadline, f"{what or condition} has not come in {patience_s:g} s"
        await asyncio.sleep(0.01)
    return answer


def settings(
    addresses: Addresses,
    lease_s: float = 5.0,
    kek: str | None = None,
    kek_file: Path | None = None,
    **more: Any,
) -> Settings:
    """What a worker is told; nothing of the environment of the tests."""
    return Settings(
        DATABASE_URL=addresses.database_url,
        REDIS_URL=addresses.redis_url,
        lease_s=lease_s,
        kek=kek,
        kek_file=kek_file,
        **more,
    )


@dataclass(slots=True)
class Engine:
    """A running worker, its parts, and a client to talk to it."""

    worker: Worker
    client: Client

    @property
    def processor(self) -> CommandProcessor:
        """What decides."""
        return self._of(CommandProcessor)

    @property
    def managers(self) -> ProcessManager:
        """What gives tasks to agents and looks after them."""
        return self._of(ProcessManager)

    def _of(self, kind: type[T]) -> T:
        return next(part for _, part in self.worker.feeds if isinstance(part, kind))

    def feed(self, topic: str) -> Any:
        """The feed of this topic."""
        return next(feed for feed, _ in self.worker.feeds if feed.topic == topic)

    @property
    def pool(self) -> asyncpg.Pool:
        """Connections to the database."""
        return self.client.pool


@asynccontextmanager
async def engine(
    addresses: Addresses,
    roles: Iterable[str] = ROLES,
    lease_s: float = 5.0,
    kek: str | None = None,
    kek_file: Path | None = None,
    **more: Any,
) -> AsyncIterator[Engine]:
    """A worker in this process, once it owns every partition, and a client.

    With a key-encryption key, sealing is on; `more` are further settings.
    """
    told = settings(addresses, lease_s, kek, kek_file, **more)
    worker = Worker(told, roles)
    try:
        async with running(worker.app()), Client(addresses, "test", told) as client:
            made = Engine(worker, client)

            async def owns_all() -> bool:
                return all(len(feed.owned) == feed.partitions for feed, _ in worker.feeds)

            await until(owns_all, "the partitions")
            with garbage_as_in_a_worker():
                yield made
    finally:
        await worker.close()


@contextmanager
def garbage_as_in_a_worker() -> Iterator[None]:
    """Without it, all that earlier tests have left is looked through again and again."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@asynccontextmanager
async def agents(
    addresses: Addresses, roles: Iterable[str], factor: float = 0.0, capacity: int = 10_000
) -> AsyncIterator[AgentHost]:
    """Simulated agents, one a role, with room for everything unless less is said."""
    doing = simulated_agents(sorted(set(roles)), factor=factor, capacity=capacity)
    async with host(addresses, doing) as made:
        yield made


@asynccontextmanager
async def host(
    addresses: Addresses,
    doing: Sequence[Agent],
    lease_s: float = 10.0,
    keys: Keyring | None = None,
    token: Shown = nothing,
) -> AsyncIterator[AgentHost]:
    """A host of these agents; nothing that still runs at the end is waited for."""
    name = f"host-{uuid4().hex}"
    made = AgentHost(addresses.redis_url, doing, name=name, lease_s=lease_s, keys=keys, token=token)
    made.start()
    try:
        yield made
    finally:
        await made.stop(grace_s=0.0)


def an_id(prefix: str, partition: int, partitions: int = 16) -> str:
    """A fresh id that belongs to this partition."""
    while partition_of(made := f"{prefix}-{uuid4().hex}", partitions) != partition:
        pass
    return made


def definition(tasks: int = 3, name: str = "small", role: str = "worker") -> dict[str, Any]:
    """A chain of tasks."""
    return {
        "name": name,
        "version": "1",
        "agents": {role: {}},
        "tasks": [
            {
                "task_id": f"t{n}",
                "agent_role": role,
                "depends_on": [f"t{n - 1}"] if n else [],
                "metadata": {"duration": 1.0},
            }
            for n in range(tasks)
        ],
    }


async def completed(
    pool: asyncpg.Pool, executions: Iterable[str], patience_s: float = 60.0
) -> None:
    """Wait until the log says that these executions have completed."""
    wanted = [f"execution/{name}" for name in executions]

    async def all_of_them() -> bool:
        found = await pool.fetchval(
            "SELECT count(DISTINCT subject) FROM events"
            " WHERE type = 'ExecutionCompleted' AND subject = ANY($1)",
            wanted,
        )
        return bool(found == len(wanted))

    await until(all_of_them, f"the end of {len(wanted)} executions", patience_s)


async def projected(on: Engine, patience_s: float = PATIENCE_S) -> None:
    """Wait until the read models have everything that is in the log."""

    async def caught_up() -> bool:
        behind = await on.pool.fetchval(
            "SELECT count(*) FROM cursors AS head LEFT JOIN cursors AS reader"
            " ON reader.partition = head.partition AND reader.consumer = 'projections'"
            " WHERE head.consumer = 'commands'"
            " AND head.position > coalesce(reader.position, 0)"
        )
        return bool(behind == 0)

    await until(caught_up, "the read models", patience_s)


class Process:
    """A worker in a process of its own; see `tests.system.child` for what it tells."""

    def __init__(
        self, addresses: Addresses, *, roles: Iterable[str], lease_s: float, armed: str
    ) -> None:
        self._diary = TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.system.child", ",".join(roles), str(lease_s), armed],
            cwd=ROOT,
            env=os.environ | addresses.environment(),
            stdout=subprocess.PIPE,
            stderr=self._diary,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def ready(self) -> str:
        """Wait until its loops run; returns the name under which it owns leases."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, f"the worker ended with {self.popen.wait()}"
        return str(json.loads(line)["name"])

    def arm(self, moment: str) -> None:
        """Have it stop itself when it next comes to one of the moments of `child.MOMENTS`."""
        from tests.system.child import MOMENTS

        self.popen.send_signal(signal.SIGRTMIN + MOMENTS.index(moment))

    def stop(self) -> None:
        """Freeze it, wherever it is."""
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self.popen.kill()
        self.popen.wait()

    @property
    def frozen(self) -> bool:
        """Whether it is stopped by a signal."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def diary(self) -> str:
        """The end of what it has logged."""
        self._diary.seek(0)
        return f"worker {self.pid}: {self._diary.read()[-DIARY_CHARS:]}"

    def close(self) -> None:
        """Let go of what is left of it."""
        if self.popen.poll() is None:
            self.kill()
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._diary.close()

    def finish(self) -> dict[str, Any]:
        """End it in order; returns what it counted."""
        self.resume()
        self.popen.terminate()
        said, _ = self.popen.communicate(timeout=PATIENCE_S)
        assert self.popen.returncode == 0, f"the worker ended with {self.popen.returncode}"
        counts: dict[str, Any] = json.loads(said.splitlines()[-1])
        return counts


@contextmanager
def process(
    addresses: Addresses,
    *,
    roles: Iterable[str] = ("commands",),
    lease_s: float = 5.0,
    armed: str = "",
) -> Iterator[Process]:
    """A worker in a process of its own, gone at the end however it got there."""
    made = Process(addresses, roles=roles, lease_s=lease_s, armed=armed)
    try:
        yield made
    except BaseException:
        print(made.diary())  # shown where the test has failed
        raise
    finally:
        made.close()
