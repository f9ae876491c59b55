"""The embedded servers: they start, keep their data, come back, and never outlive their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from streams.embedded import (
    DataDirectoryRefused,
    EmbeddedPostgres,
    EmbeddedRedis,
    ServerFailed,
    Servers,
    default_data_dir,
    embedded,
)
from streams.embedded.account import SYSTEM_HOME, reachable, server_account
from streams.embedded.binaries import find_postgres, find_redis
from tests.processes import GONE_S_MAX, is_gone, owner, parent, wait_until_gone
from tests.servers import Endpoints, scratch_directory

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


async def write(servers: Servers | Endpoints, note: str) -> None:
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS notes (note text)")
    await connection.execute("INSERT INTO notes VALUES ($1)", note)
    await connection.close()
    async with Redis.from_url(servers.redis_url) as client:
        await client.rpush("notes", note)


async def read(servers: Servers | Endpoints) -> tuple[list[str], list[str]]:
    connection = await asyncpg.connect(servers.database_url)
    rows = await connection.fetch("SELECT note FROM notes")
    await connection.close()
    async with Redis.from_url(servers.redis_url) as client:
        notes = await client.lrange("notes", 0, -1)
    return [row["note"] for row in rows], [note.decode() for note in notes if type(note) is bytes]


async def test_data_and_urls_survive_a_restart(data_dir: Path) -> None:
    with embedded(data_dir) as servers:
        first = servers
        await write(servers, "before")
        pids = [servers.postgres.pid or 0, servers.redis.pid or 0]
    wait_until_gone(*pids)

    with embedded(data_dir) as servers:
        assert (servers.database_url, servers.redis_url) == (first.database_url, first.redis_url)
        assert await read(servers) == (["before"], ["before"])


async def test_settings_that_the_engine_relies_on(data_dir: Path) -> None:
    with embedded(data_dir) as servers:
        connection = await asyncpg.connect(servers.database_url)
        for setting, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "127.0.0.1",
        }.items():
            assert await connection.fetchval(f"SHOW {setting}") == value
        await connection.close()
        async with Redis.from_url(servers.redis_url) as client:
            assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert await client.config_get("appendonly") == {"appendonly": "yes"}


async def test_nobody_enters_without_the_password(data_dir: Path) -> None:
    with embedded(data_dir) as servers:
        assert (data_dir / "password").stat().st_mode & 0o777 == 0o600
        password = servers.postgres.password
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(servers.database_url.replace(password, "guess"))
        async with Redis.from_url(servers.redis_url.replace(f":{password}@", "")) as client:
            with pytest.raises(Exception, match="authenticat"):
                await client.ping()


async def test_killed_servers_come_back_at_the_same_place(data_dir: Path) -> None:
    with embedded(data_dir) as servers:
        await write(servers, "before")
        async with Redis.from_url(servers.redis_url) as client:
            await client.config_set("appendfsync", "always")
            await client.rpush("notes", "just now")
        # One client stays connected, so that a backend is alive when its postmaster is killed.
        left_alone = await asyncpg.connect(servers.database_url)
        servers.postgres.kill()
        servers.redis.kill()
        assert (servers.postgres.pid, servers.redis.pid) == (None, None)

        servers.postgres.start()
        servers.redis.start()
        assert await read(servers) == (["before"], ["before", "just now"])
        left_alone.terminate()


async def test_either_server_can_be_used_alone(data_dir: Path) -> None:
    redis = EmbeddedRedis(data_dir)
    redis.start()
    try:
        redis.start()  # it runs already: nothing happens
        async with Redis.from_url(redis.url) as client:
            assert await client.ping()
    finally:
        redis.stop()
    assert redis.pid is None
    redis.stop()


def test_a_server_outlives_the_thread_that_started_it(data_dir: Path) -> None:
    redis = EmbeddedRedis(data_dir)
    starter = threading.Thread(target=redis.start)
    starter.start()
    starter.join()
    time.sleep(0.2)  # the signal of a dying parent would have come by now
    assert redis.pid is not None
    redis.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's life")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_is_ended_leaves_no_server_behind(
    data_dir: Path, end: signal.Signals
) -> None:
    with parent(data_dir) as (process, printed):
        pids = [int(pid) for pid in printed[:2]]
        assert not any(map(is_gone, pids))
        process.send_signal(end)
        process.wait(GONE_S_MAX)
    if end is signal.SIGKILL:  # at once, while the orphans may still be on their way out
        with embedded(data_dir):
            pass
    wait_until_gone(*pids)


async def test_a_stale_pid_file_does_not_block_the_start(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    pid_file = postgres.home / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    postgres.kill()
    assert pid_file.exists()
    postgres.stop()

    # Its number has gone to another process of the same account, as happens in containers.
    account = server_account()
    command, user = ["sleep", "60"], account.uid if account else None
    with subprocess.Popen(command, user=user) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        try:
            postgres.start()
            connection = await asyncpg.connect(postgres.url)
            await connection.close()
        finally:
            postgres.stop()
            other.kill()


def test_a_second_start_on_the_same_directory_is_refused(data_dir: Path) -> None:
    with embedded(data_dir) as servers:
        with (
            pytest.raises(DataDirectoryRefused, match=f"held by process {os.getpid()}"),
            embedded(data_dir),
        ):
            pass
        assert servers.postgres.pid is not None
        assert servers.redis.pid is not None


def test_a_server_that_does_not_come_up_shows_its_log(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    postgres.stop()
    with socket.create_server(("127.0.0.1", postgres.port)):
        with pytest.raises(ServerFailed, match="Address already in use"):
            postgres.start()

        other = EmbeddedPostgres(data_dir)  # a new run may take another port, and remembers it
        other.start()
        other.stop()
    assert other.port != postgres.port
    assert (data_dir / "postgres.port").read_text() == str(other.port)


def test_a_directory_that_cannot_be_made_is_refused(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with (
        pytest.raises(DataDirectoryRefused, match="Not a directory"),
        embedded(data_dir / "file" / "below"),
    ):
        pass


def test_the_default_directory_can_be_chosen(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCORE_HOME", str(data_dir))
    assert default_data_dir() == data_dir


@root_only
async def test_root_below_a_directory_that_is_closed_to_others() -> None:
    with scratch_directory(mode=0o700) as closed:
        data_dir = closed / "data of mine"
        with embedded(data_dir) as servers:
            await write(servers, "before")
            home = servers.postgres.home
            assert home.parent == SYSTEM_HOME
        with embedded(data_dir) as servers:
            assert servers.postgres.home == home
            assert await read(servers) == (["before"], ["before"])
        (closed / "postgres").symlink_to(home)  # so that the clean-up finds it
    with contextlib.suppress(OSError):
        SYSTEM_HOME.rmdir()  # only when it was made for this test


@root_only
async def test_a_normal_user(data_dir: Path) -> None:
    if not (reachable(find_postgres()) and reachable(find_redis())):
        pytest.skip("the servers' programs lie in a directory that is closed to normal users")
    account = server_account()
    assert account is not None
    os.chown(data_dir, account.uid, account.gid)
    with parent(data_dir, str(account.uid), str(account.gid)) as (process, printed):
        endpoints = Endpoints(*printed[2:])
        await write(endpoints, "before")
        assert await read(endpoints) == (["before"], ["before"])
        assert [owner(int(pid)) for pid in printed[:2]] == [account.uid] * 2
        process.send_signal(signal.SIGINT)
        process.wait(GONE_S_MAX)
    wait_until_gone(*map(int, printed[:2]))
