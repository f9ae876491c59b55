"""The command line as people use it: whole engines as processes, and nothing left when they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import orjson
import pytest

from tests.processes import ROOT
from tests.servers import scratch_directory

EXAMPLE = str(ROOT / "processors/examples/code_review.yaml")
EXAMPLE_TASKS = 13
UP_S_MAX = 30.0  # the machine may be busy; two seconds where it is not
STOP_S_MAX = 15.0
MARK = "AGENTCORE_TEST_MARK"


@dataclass(slots=True)
class Place:
    """A scratch directory, and the processes that belong to what runs there."""

    directory: Path
    mark: str
    api: str = ""
    """Where an engine that runs here answers over HTTP."""

    @property
    def environment(self) -> dict[str, str]:
        """No servers of anybody else, and a mark that children inherit."""
        kept = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
        mine = {"AGENTCORE_HOME": f"{self.directory}/home", "TMPDIR": str(self.directory)}
        return kept | mine | {MARK: self.mark}

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on running; both outputs come together."""
        with subprocess.Popen(
            [sys.executable, "-m", "processors", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def call(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command from beginning to end."""
        return subprocess.run(
            [sys.executable, "-m", "processors", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def json(self, *arguments: str) -> Any:
        """What a command that succeeds prints with --json."""
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return orjson.loads(done.stdout)

    def processes(self) -> list[str]:
        """What still runs: by the mark in its environment, or by a path below the directory."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                marked = self.mark.encode() in (entry / "environ").read_bytes()
                here = str((entry / "cwd").readlink()).startswith(str(self.directory))
            except OSError:
                continue  # ended meanwhile
            if marked or here or str(self.directory) in command:
                found.append(command)
        return found


@contextmanager
def place() -> Iterator[Place]:
    """A scratch directory, and a mark for the processes that are started for it."""
    with scratch_directory() as directory:
        yield Place(directory, uuid4().hex)


def until(done: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline, f"not in {limit_s} s: {what}"
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it printed up to a line with this text."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"it ended with {process.wait()} and never said {text!r}:\n{printed}")


def nothing_is_left(where: Place) -> None:
    deadline = time.monotonic() + STOP_S_MAX
    while left := where.processes():
        assert time.monotonic() < deadline, "\n".join(left)
        time.sleep(0.05)


@contextmanager
def engine(where: Place, agents: int = 2) -> Iterator[subprocess.Popen[str]]:
    """A running `up` with simulated agents; stopped with SIGINT at the end, if it still runs."""
    with where.started("up", "--port", "0", "--agents", str(agents)) as process:
        printed = read_until(process, "Ctrl-C stops everything")
        if "The API answers" not in printed:
            printed = read_until(process, "The API answers")
        where.api = printed.rpartition("answers at ")[2].split()[0]
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_S_MAX) == 0
            nothing_is_left(where)


@pytest.fixture(scope="module")
def up() -> Iterator[Place]:
    """A place where an engine runs."""
    with place() as where, engine(where):
        yield where


# One engine, used from other terminals ----------------------------------------------------------


@pytest.fixture(scope="module")
def finished(up: Place) -> dict[str, Any]:
    """An execution that was submitted and has completed."""
    submitted: dict[str, Any] = up.json("submit", EXAMPLE, "--wait", "--timeout", "30")
    return submitted


def test_submit_waits_until_it_has_completed(finished: dict[str, Any]) -> None:
    assert finished["status"] == "completed"


def test_the_same_is_there_over_http(up: Place, finished: dict[str, Any]) -> None:
    """R50: `up` serves it beside the engine."""
    place = f"{up.api}/api/v1/executions/{finished['execution_id']}"
    until(lambda: httpx.get(place).json().get("status") == "completed", 10, "the read model")


def test_status_follows(up: Place, finished: dict[str, Any]) -> None:
    def row() -> dict[str, Any]:
        found: dict[str, Any] = up.json("status", finished["execution_id"])
        return found

    until(lambda: bool(row()["status"] == "completed"), 10, "the projector catches up")
    assert row()["completed"] == EXAMPLE_TASKS
    assert row()["name"] == "code-review"
    assert finished["execution_id"] in [one["execution_id"] for one in up.json("status")]


def test_events_are_the_whole_history_in_order(up: Place, finished: dict[str, Any]) -> None:
    done = up.call("events", finished["execution_id"], "--limit", "0", "--json")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["type"] == "ExecutionStarted"
    assert events[-1]["type"] == "ExecutionCompleted"
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    completed = up.call("events", finished["execution_id"], "--type", "TaskCompleted", "--json")
    assert len(completed.stdout.splitlines()) == EXAMPLE_TASKS


def test_the_newest_events_of_all_partitions(up: Place, finished: dict[str, Any]) -> None:
    done = up.call("events", "--limit", "3", "--json")
    times = [orjson.loads(line)["time"] for line in done.stdout.splitlines()]
    assert len(times) == 3
    assert times == sorted(times)


def test_events_follow_prints_what_happens_next(up: Place, finished: dict[str, Any]) -> None:
    follow = ("events", "--follow", "--type", "AgentRegistered", "--limit", "1")
    with up.started(*follow) as process:
        agent = f"agent/{uuid4()}"
        data = '{"name": "late", "roles": ["scribe"]}'
        read_until(process, "AgentRegistered")  # it follows by now
        assert up.call("publish", agent, "RegisterAgent", "--data", data).returncode == 0
        read_until(process, agent)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S_MAX) == 130


def test_replay_equals_the_read_model(up: Place, finished: dict[str, Any]) -> None:
    replayed = up.json("replay", finished["execution_id"], "--check")
    assert replayed["differences"] == []
    assert replayed["counts"] == {"completed": EXAMPLE_TASKS}
    start = up.json("replay", finished["execution_id"], "--at", str(finished["position"]))
    assert (start["status"], start["counts"]) == ("executing", {"pending": EXAMPLE_TASKS})


def test_a_refused_command_exits_1_with_its_problem(up: Place, finished: dict[str, Any]) -> None:
    pause = ("publish", f"execution/{finished['execution_id']}", "PauseExecution")
    refused = up.call(*pause, "--json")
    assert refused.returncode == 1
    assert orjson.loads(refused.stdout)["code"] == "EXECUTION_ENDED"


def test_a_repeated_command_gets_the_first_outcome(up: Place) -> None:
    agent = ("publish", f"agent/{uuid4()}", "RegisterAgent", "--id", str(uuid4()))
    data = ("--data", '{"name": "twice", "roles": ["scribe"]}')
    first, second = up.json(*agent, *data), up.json(*agent, *data)
    assert second == first | {"repeated": True}
    assert first["repeated"] is False


def test_watch_ends_with_the_execution(up: Place, finished: dict[str, Any]) -> None:
    done = up.call("watch", finished["execution_id"])
    assert done.returncode == 0
    assert f"{finished['execution_id']} completed" in done.stdout


def test_what_does_not_exist_exits_1(up: Place) -> None:
    for command in ("status", "events", "replay", "watch"):
        done = up.call(command, "nowhere")
        assert done.returncode == 1, command
        assert done.stderr.count("\n") == 1


def test_verify_finds_a_changed_byte(up: Place, finished: dict[str, Any]) -> None:
    assert up.call("verify").returncode == 0
    url = orjson.loads((up.directory / "home/running.json").read_bytes())["database_url"]
    partition, position = finished["partition"], finished["position"] + 2
    place_ = f"partition = {partition} AND position = {position}"
    change = (
        'UPDATE events SET message = replace(message::text, \'"time":"2\', \'"time":"1\')::json'
    )
    restore = change.replace('\'"time":"2\', \'"time":"1\'', '\'"time":"1\', \'"time":"2\'')
    asyncio.run(_execute(url, f"{change} WHERE {place_}"))
    try:
        done = up.call("verify", "--partition", str(partition))
        assert done.returncode == 1
        assert f"partition {partition}, position {position}:" in done.stderr
    finally:
        asyncio.run(_execute(url, f"{restore} WHERE {place_}"))
    assert up.call("verify").returncode == 0


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        assert await connection.execute(statement) == "UPDATE 1"
    finally:
        await connection.close()


# Engines that come and go -----------------------------------------------------------------------


def test_up_twice_shows_the_history_and_a_killed_one_leaves_nothing() -> None:
    with place() as where:
        with engine(where):
            first = where.json("submit", EXAMPLE, "--wait", "--timeout", "30")
        assert where.call("status").returncode == 3
        with engine(where, agents=0) as process:
            assert where.json("status", first["execution_id"])["completed"] == EXAMPLE_TASKS
            waits_in_vain_and_is_cancelled(where)
            process.kill()
            nothing_is_left(where)


def waits_in_vain_and_is_cancelled(where: Place) -> None:
    """Without agents nothing ends by itself."""
    waited = where.call("submit", EXAMPLE, "--wait", "--timeout", "0.5", "--json")
    assert waited.returncode == 4
    shown = orjson.loads(waited.stdout)
    assert shown["status"] == "executing"
    with where.started("watch", shown["execution_id"]) as watcher:
        read_until(watcher, "executions 0/1")
        cancel = ("publish", f"execution/{shown['execution_id']}", "CancelExecution")
        assert where.call(*cancel).returncode == 0
        assert "cancelled" in read_until(watcher, shown["execution_id"])
        assert watcher.wait(STOP_S_MAX) == 1


def test_a_demo_ends_well_and_leaves_nothing() -> None:
    with place() as where:
        done = where.call("demo", EXAMPLE, "--factor", "0", "--json")
        assert done.returncode == 0, done.stderr
        summary = orjson.loads(done.stdout)
        assert (summary["completed"], summary["tasks"]) == (1, EXAMPLE_TASKS)
        assert summary["runs"][0]["events"] > 2 * EXAMPLE_TASKS
        nothing_is_left(where)
        assert list(where.directory.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing() -> None:
    with place() as where:
        with where.started("demo", EXAMPLE, "--factor", "20") as process:
            read_until(process, " 1 running")
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert "Traceback" not in process.stdout.read()
            assert process.wait(STOP_S_MAX) == 130
        nothing_is_left(where)
        assert list(where.directory.iterdir()) == []
