"""Single faults of Postgres: unknown outcomes, slow and failing disks, a log without its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from processors import commands
from processors.client import Client
from streams.embedded import EmbeddedRedis
from tests.chaos import checker
from tests.chaos.checker_executions import violations
from tests.chaos.fleet import Child, Fleet, fleet
from tests.chaos.ground import Ground, Postgres, Servers, ground
from tests.chaos.shapes import document, task
from tests.chaos.test_crash_points import wait
from tests.servers import scratch_directory
from tests.system import read_models

SLOW_FSYNC_US = 200_000
SMALL_DISK = "400m"
FULL_MB = 2_000
EVENTS = "SELECT count(*) FROM events"
NAP = {"sleep_s": 0.2}
TEN = range(10)


@pytest.fixture
async def on(harmed: Servers) -> AsyncIterator[Ground]:
    async with ground(harmed) as made:
        yield made


@pytest.fixture
async def those(on: Ground) -> AsyncIterator[Fleet]:
    async with fleet(on) as made:
        yield made


def intents(count: int, prefix: str = "a"):
    return [commands.register_agent(f"{prefix}{n}", name="a", roles=["r"]) for n in range(count)]


async def whole(on: Ground, events: int) -> None:
    """Exactly so many events, and nothing wrong with any of them."""

    async def there() -> bool:
        async with on.database() as database:
            return bool(await database.fetchval(EVENTS) >= events) and not violations(
                await checker.read(database, on.redis)
            )

    with contextlib.suppress(AssertionError):
        await wait(there, f"{events} events and a whole log")
    async with on.database() as database:
        assert await database.fetchval(EVENTS) == events
        assert violations(await checker.read(database, on.redis)) == []


async def test_a_commit_that_nobody_can_tell_the_outcome_of_counts_once(
    on: Ground, those: Fleet
) -> None:
    """F22, I4: the commit waits for a standby that never comes, and its session is ended.

    The row is there, the client was told of an error; the head says what is true.
    """
    worker = await those.worker()
    async with Client(on.addresses) as client, on.database() as database:
        await asyncio.gather(*map(client.call, intents(16)))
        await database.execute("SET synchronous_commit = off")
        await database.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await database.execute("SELECT pg_reload_conf()")
        try:
            calling = asyncio.gather(*map(client.call, intents(16, "b")))

            async def stuck() -> bool:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                return bool(await database.fetchval(waiting + " AND query LIKE '%INTO commits%'"))

            await wait(stuck, "a commit that waits")
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event"
            assert await database.fetchval(f"{ended} = 'SyncRep'") > 0
        finally:
            await database.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await database.execute("SELECT pg_reload_conf()")
        await calling
    await wait(lambda: worker.counts()["unknown_commits"] > 0, "an unknown commit")
    await whole(on, 32)


async def test_what_was_acknowledged_survives_the_death_of_every_server_process(
    on: Ground, those: Fleet
) -> None:
    """F21, I10: killed in the middle of commits, three times; recovery has every one."""
    await those.worker()
    async with Client(on.addresses) as client:
        for turn in range(3):
            calling = asyncio.gather(*map(client.call, intents(300, f"t{turn}-")))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(on.servers.restart_postgres, kill=True)
            await calling
    await whole(on, 900)


@contextlib.contextmanager
def tampered(postgres: Postgres, injected: str) -> Iterator[None]:
    """Every fdatasync of the server is tampered with."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    pids = [str(postgres.pid), *_children(postgres.pid)]
    each = [part for pid in pids for part in ("-p", pid)]
    with subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", *each),
            *("-e", f"inject=fdatasync:{injected}"),
        ],
        stderr=subprocess.PIPE,
    ) as tracer:
        try:
            if not _traced(str(postgres.pid)):
                tracer.kill()
                pytest.skip("this account may trace nobody")
            yield
        finally:
            tracer.send_signal(signal.SIGINT)


def _children(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _traced(pid: str) -> bool:
    for _ in range(100):
        if "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.02)
    return False


async def test_a_slow_disk_slows_and_loses_nothing(on: Ground, those: Fleet) -> None:
    """F23, I16: every commit takes 0.2 s longer, so commits grow and stay few."""
    worker = await those.worker()
    async with Client(on.addresses) as client:
        await asyncio.gather(*map(client.call, intents(16, "w")))
        before = worker.counts()["commits"]
        with tampered(on.servers.postgres, f"delay_enter={SLOW_FSYNC_US}"):
            begun = asyncio.get_running_loop().time()
            await asyncio.gather(*map(client.call, intents(400)))
            took = asyncio.get_running_loop().time() - begun
        assert took > SLOW_FSYNC_US / 1e6, "void: nothing was slow"
        await wait(lambda: worker.counts()["commits"] > before, "its counts")
        assert worker.counts()["commits"] - before < 100
    await whole(on, 416)


async def test_a_failing_disk_costs_a_recovery_and_nothing_else(on: Ground, those: Fleet) -> None:
    """F23, I10: an error of fdatasync is a panic of the server; what was acknowledged is there."""
    await those.worker()
    async with Client(on.addresses) as client:
        await asyncio.gather(*map(client.call, intents(16, "w")))
        with tampered(on.servers.postgres, "error=EIO:when=2"):
            calling = asyncio.gather(*map(client.call, intents(200)))

            def panicked() -> bool:
                return "PANIC" in on.servers.postgres.log.read_text(errors="replace")

            await wait(panicked, "the panic")
        await calling
    await whole(on, 216)


async def test_a_full_disk_stops_the_intake_and_nothing_else() -> None:
    """F23, I10: nothing is acknowledged that is not kept; with room again, the work goes on."""
    with scratch_directory() as directory, small_disk(directory / "postgres"):
        servers = Servers(Postgres(directory), EmbeddedRedis(directory))
        try:
            servers.redis.start()
            servers.postgres.start()
            async with ground(servers) as on, fleet(on) as those:
                worker = await those.worker()
                async with Client(on.addresses) as client:
                    await asyncio.gather(*map(client.call, intents(16, "w")))
                    ballast = directory / "postgres" / "ballast"
                    fill(ballast)
                    large = {"text": "x" * 100_000}
                    said = [
                        commands.register_agent(f"a{n}", name="a", roles=["r"], card=large)
                        for n in range(200)
                    ]
                    calling = asyncio.gather(*(client.call(one, 120.0) for one in said))
                    await wait(lambda: refused(worker), "a full disk")
                    ballast.unlink()
                    await calling
                await whole(on, 216)
        finally:
            servers.redis.stop()
            servers.postgres.stop()


def refused(worker: Child) -> bool:
    """Whether the server has said that its disk is full."""
    diary = (worker.directory / "diary").read_text(errors="replace")
    return "No space left" in diary or "DiskFull" in diary


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A disk of its own, of some hundred megabytes."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0711", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this account may mount nothing")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that there is."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(FULL_MB):
            file.write(bytes(1_000_000))


async def test_a_log_that_lost_its_end_is_noticed_and_its_positions_stay_true(
    on: Ground, those: Fleet
) -> None:
    """F28, I11, I12, I13, I15: Postgres comes back as an older copy; Redis knows more than the log.

    The mirror and all memories are ahead. What only the lost end knew is gone, though it was
    acknowledged: an asynchronous standby cannot promise more. But nobody mixes the two histories:
    the mirror begins afresh, everybody comes back to what the log says, and what runs goes on.
    (What Redis still has is even decided again.)
    """
    worker = await those.worker()
    await those.host()
    chain = document("chain", [task(f"t{n}", *([f"t{n - 1}"] if n else []), do=NAP) for n in TEN])
    creating = commands.create_workflow(definition=chain)
    async with Client(on.addresses) as client:
        await client.call(creating)
        await asyncio.gather(*map(client.call, intents(64)))
        starting = [commands.start_execution(creating.root) for _ in range(20)]
        await asyncio.gather(*map(client.call, starting))
        await asyncio.sleep(5 * NAP["sleep_s"])
        with older_copy(on.servers.postgres) as restore:
            await asyncio.to_thread(on.servers.postgres.start)
            await asyncio.gather(*map(client.call, intents(64, "lost")))
            await asyncio.sleep(2 * NAP["sleep_s"])
            restore()
        await asyncio.to_thread(on.servers.postgres.start)
        await asyncio.gather(*map(client.call, intents(64, "later")))
    await wait(lambda: worker.counts()["mirror_rebuilt"] > 0, "a mirror ahead of its log")
    assert worker.counts()["said"].get("log_went_back"), "void: nobody noticed"

    async def well() -> bool:
        async with on.database() as database:
            return not violations(await checker.read(database, on.redis))

    with contextlib.suppress(AssertionError):
        await wait(well, "a whole log")
    async with on.database() as database:
        facts = await checker.read(database, on.redis)
        assert violations(facts) == []
        await read_models.equal_the_fold(database, facts.events)
    for command in [*intents(64), *intents(64, "later")]:
        assert len(facts.subjects[command.subject]) == 1
    assert len(facts.executions) == len(starting)


@contextlib.contextmanager
def older_copy(postgres: Postgres) -> Iterator[Callable[[], None]]:
    """Copies a stopped server's data; calling what it yields kills the server and puts it back."""
    data, copy = postgres.home / "data", postgres.home / "copy"
    postgres.stop()
    shutil.copytree(data, copy, symlinks=True)
    _give(copy, postgres)

    def restore() -> None:
        postgres.kill()
        postgres.stop()
        shutil.rmtree(data)
        copy.rename(data)

    try:
        yield restore
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _give(path: Path, postgres: Postgres) -> None:
    """To the account that the server runs as."""
    if postgres.account is not None:
        for each in [path, *path.rglob("*")]:
            shutil.chown(each, postgres.account.uid, postgres.account.gid)
