"""The README's round trips in other languages run as they stand (R51), and its WebSocket client."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from processors.settings import Addresses
from tests.system.engine import engine
from tests.system.sockets import served
from tests.system.test_readme import blocks

LINE_S_MAX = 20.0
NODE = shutil.which("node")


def redis_cli() -> str | None:
    """The program, of the machine or of the bundled server."""
    bundled = Path(sys.prefix, "bin", "redis-cli")
    return shutil.which("redis-cli") or (str(bundled) if os.access(bundled, os.X_OK) else None)


def shim(folder: Path, redis_url: str) -> dict[str, str]:
    """An environment in which `redis-cli` talks to this database of this server."""
    at = urlsplit(redis_url)
    program = folder / "redis-cli"
    program.write_text(
        f'#!/bin/sh\nexec {redis_cli()} -h {at.hostname} -p {at.port} -n {at.path[1:] or 0} "$@"\n'
    )
    program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "REDISCLI_AUTH": at.password or "", "REDIS_URL": redis_url}


async def said(*words: str, env: dict[str, str]) -> str:
    """What a program prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *words, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), LINE_S_MAX)
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.skipif(redis_cli() is None, reason="there is no redis-cli")
async def test_the_round_trips_run_as_they_stand(database, redis_url, tmp_path, monkeypatch):
    [shell], [script], [client] = blocks("sh redis"), blocks("js redis"), blocks("js websocket")
    env = shim(tmp_path, redis_url)
    addresses = Addresses(database, redis_url)
    async with engine(addresses), served(addresses, monkeypatch) as gateway:
        printed = [await said("sh", "-c", line, env=env) for line in shell.splitlines()]
        assert '"status":"accepted"' in printed[1]
        assert '"status":"accepted"' in printed[3]
        assert '"type":"ExecutionStarted"' in printed[4]
        assert '"subject":"execution/hello-1"' in printed[4]
        if NODE is None:
            pytest.skip("there is no node; redis-cli did its part")
        told = await said(NODE, "-e", script, env=env)
        assert [line.split()[1] for line in told.splitlines()][:1] == ["ExecutionStarted"]
        assert told.rstrip().endswith("TaskScheduled")
        have = await said(
            NODE,
            "--experimental-websocket",
            "-p",
            "typeof WebSocket",
            env=env | {"NODE_NO_WARNINGS": "1"},
        )
        if have.strip() != "function":
            pytest.skip("this node has no WebSocket; its other part ran")
        ending = "\nsetTimeout(() => process.exit(), 1500)"
        code = client.replace("ws://localhost:8002", gateway.url) + ending
        told = await said(NODE, "--experimental-websocket", "-e", code, env=env)
        heard = [line for line in told.splitlines() if line.isalpha()]
        assert heard == ["ExecutionStarted", "PhaseEntered", "TaskScheduled"]
