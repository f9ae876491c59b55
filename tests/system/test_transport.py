"""Faust over a feed in memory: who owns what, one message a batch, back-pressure, crash, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.feed import Batch
from streams.transport import app as transport_app
from streams.transport import make_app, run_app, running, supervisor
from streams.transport.app import BUFFER_BATCHES

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0  # of a busy machine, which starts a process in seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


class MemoryFeed:
    """A feed whose log is a list and whose one durable position its agent moves: `recorded`."""

    partitions = 4

    def __init__(self, batches: list[Batch], topic: str = "letters", owned: set[int] | None = None):
        self.topic = topic
        self.batches = batches
        self.owned = frozenset({0} if owned is None else owned)
        self.returned: frozenset[int] = frozenset()
        self.changed = asyncio.Event()
        self.changed.set()
        self.read = self.recorded = self.rewinds = 0
        self.failures: list[Exception] = []
        self.diary: list[str] = []

    def own(self, *partitions: int) -> None:
        self.owned = frozenset(partitions)
        self.changed.set()

    async def start(self) -> None:
        self.diary.append("started")

    async def stop(self) -> None:
        self.diary.append("stopped")

    async def assignment(self) -> frozenset[int]:
        while self.owned == self.returned:
            self.changed.clear()
            await self.changed.wait()
        self.returned = self.owned
        return self.returned

    async def next(self) -> Batch | None:
        if self.failures:
            raise self.failures.pop()
        if self.read >= len(self.batches):
            await asyncio.sleep(0.005)
            return None
        self.read += 1
        return self.batches[self.read - 1]

    async def rewind(self) -> None:
        self.rewinds += 1
        self.read = self.recorded


def numbered(count: int) -> list[Batch]:
    return [Batch((0,), [number]) for number in range(count)]


async def test_an_agent_gets_each_batch_as_one_message_the_very_object_in_order() -> None:
    batches = [Batch((i % 3, 3), [object()]) for i in range(100)]
    feed = MemoryFeed(batches, owned={0, 1, 2, 3})
    app = make_app("test", [feed])
    got: list[Batch] = []
    offsets: dict[int, list[int]] = {}

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            got.append(event.value)
            offsets.setdefault(event.message.partition, []).append(event.message.offset)

    async with running(app):
        await until(lambda: len(got) == 100)
    assert all(a is b for a, b in zip(got, batches, strict=True))
    assert all(seen == list(range(len(seen))) for seen in offsets.values())


async def test_partitions_won_and_lost_reach_faust_and_disturb_nothing_else() -> None:
    feed = MemoryFeed(numbered(3), owned={0, 1})
    app = make_app("test", [feed])
    heard: list[tuple[str, list[int]]] = []
    go, got = asyncio.Event(), []

    @app.agent(app.topic("letters"))
    async def agent(stream: Any) -> None:
        async for batch in stream:
            heard.append(("batch", batch.entries))
            await go.wait()
            got.extend(batch.entries)

    @app.on_partitions_assigned.connect
    async def on_assigned(_: Any, assigned: Any, **__: Any) -> None:
        await asyncio.sleep(0.01)  # no batch may pass a partition's announcement
        heard.append(("assigned", sorted(tp.partition for tp in assigned)))

    @app.on_partitions_revoked.connect
    async def on_revoked(_: Any, revoked: Any, **__: Any) -> None:
        heard.append(("revoked", sorted(tp.partition for tp in revoked)))

    async with running(app):
        await until(lambda: feed.read == 2)
        assert app.is_leader()
        feed.own(1, 2)
        await until(lambda: len(heard) == 4)
        assert not app.is_leader()
        assert {tp.partition for tp in app.consumer.assignment()} == {1, 2}
        feed.own()
        await until(lambda: len(heard) == 6)
        go.set()
        await until(lambda: len(got) == 3)  # what was in the queue outlived both changes
    assert heard == [
        ("assigned", [0, 1]),
        ("batch", [0]),
        ("revoked", [0]),
        ("assigned", [1, 2]),
        ("revoked", [1, 2]),
        ("assigned", []),
        ("batch", [1]),
        ("batch", [2]),
    ]


async def test_a_blocked_agent_stops_its_own_feed_at_the_bound_and_no_other() -> None:
    slow, quick = MemoryFeed(numbered(100)), MemoryFeed(numbered(100), topic="others")
    app = make_app("test", [slow, quick])
    go, got, others = asyncio.Event(), [], []

    @app.agent("letters")
    async def blocked(stream: Any) -> None:
        async for batch in stream:
            await go.wait()
            got.extend(batch.entries)

    @app.agent("others")
    async def free(stream: Any) -> None:
        async for batch in stream:
            others.extend(batch.entries)

    async with running(app):
        await until(lambda: len(others) == 100)
        await asyncio.sleep(0.05)
        assert slow.read == BUFFER_BATCHES + 1  # one in the agent's hand
        go.set()
        await until(lambda: len(got) == 100)
    assert got == list(range(100))


async def test_after_a_crash_the_feed_is_rewound_and_nothing_is_skipped() -> None:
    feed = MemoryFeed(numbered(30))
    app = make_app("test", [feed])
    crashes = {5, 17}
    got: list[int] = []
    lives = 0

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        nonlocal lives
        lives += 1
        async for batch in stream:
            got.extend(batch.entries)
            if got[-1] in crashes:
                crashes.remove(got[-1])
                raise ValueError("a bug in the agent")
            await asyncio.sleep(0)
            feed.recorded = got[-1] + 1

    async with running(app):
        await until(lambda: feed.recorded == 30)
    assert got == [*range(6), *range(5, 18), *range(17, 30)]
    assert (lives, feed.rewinds) == (3, 2)


async def test_what_a_feed_raises_comes_out_of_the_agents_loop_and_both_begin_again() -> None:
    feed = MemoryFeed(numbered(10))
    app = make_app("test", [feed])
    lives: list[list[int]] = []
    reasons: list[BaseException] = []

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        lives.append([])
        try:
            async for batch in stream:
                lives[-1].extend(batch.entries)
                feed.recorded = lives[-1][-1] + 1
        except ConnectionError as error:
            reasons.append(error)
            raise

    async with running(app):
        await until(lambda: feed.recorded == 10)
        lost = ConnectionError("lost")
        feed.batches += [Batch((0,), [10])]
        feed.failures.append(lost)
        await until(lambda: feed.recorded == 11)
    assert reasons == [lost]
    assert lives == [[*range(10)], [10]] or lives == [[*range(11)], []]


async def test_an_agent_that_returns_begins_again() -> None:
    feed = MemoryFeed(numbered(2))
    app = make_app("test", [feed])

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for batch in stream:
            feed.recorded = batch.entries[-1] + 1
            return

    async with running(app):
        await until(lambda: feed.recorded == 1)
        await asyncio.sleep(0.01)
        agent.supervisor.wakeup()  # it looks by itself every five seconds
        await until(lambda: feed.recorded == 2)


async def test_an_agent_that_keeps_crashing_ends_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "CRASHES_MAX", 3)
    monkeypatch.setattr(supervisor, "PAUSE_S_MIN", 0.001)
    feed = MemoryFeed(numbered(1))
    app = make_app("test", [feed])
    lives = 0

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        nonlocal lives
        async for _ in stream:
            lives += 1
            raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        async with asyncio.timeout(PATIENCE_S):
            await run_app(app, asyncio.Event())
    assert lives == 4
    assert feed.diary == ["started", "stopped"]


async def test_a_feed_that_cannot_start_ends_the_app() -> None:
    class Broken(MemoryFeed):
        async def start(self) -> None:
            raise ConnectionError("no database")

    app = make_app("test", [Broken([])])

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises(ConnectionError):
        await run_app(app, asyncio.Event())


async def test_stopping_lets_the_agent_finish_the_batch_in_hand_and_then_stops_the_feed() -> None:
    feed = MemoryFeed(numbered(100))
    app = make_app("test", [feed])
    stop = asyncio.Event()

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for _ in stream:
            stop.set()
            await asyncio.sleep(0.05)
            feed.diary.append("recorded")
        feed.diary.append("agent ended")

    async with asyncio.timeout(PATIENCE_S):
        await run_app(app, stop)
    assert feed.diary == ["started", "recorded", "agent ended", "stopped"]


async def test_stopping_waits_for_a_stuck_agent_for_its_grace_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_app, "GRACE_S", 0.05)
    feed = MemoryFeed(numbered(100))
    app = make_app("test", [feed])
    stuck = asyncio.Event()

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for _ in stream:
            stuck.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S), running(app):
        await stuck.wait()
    assert feed.diary == ["started", "stopped"]


async def test_an_idle_app_stops_without_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_app, "GRACE_S", 10 * PATIENCE_S)
    app = make_app("test", [MemoryFeed([])])

    @app.agent("letters")
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    async with asyncio.timeout(PATIENCE_S), running(app):
        pass


async def test_only_one_agent_reads_a_feed_and_only_feeds_are_read() -> None:
    app = make_app("test", [MemoryFeed([])])
    with pytest.raises(ValueError, match="One agent reads a feed"):
        app.agent("letters", concurrency=2)

    @app.agent("elsewhere")
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    with pytest.raises(LookupError, match="topic elsewhere has no feed"):
        await run_app(app, asyncio.Event())


async def test_two_agents_of_one_feed_are_refused_at_the_start() -> None:
    app = make_app("test", [MemoryFeed([])])

    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    app.agent("letters", name="one")(agent)
    app.agent("letters", name="two")(agent)
    with pytest.raises(ValueError, match="topic letters has 2 agents"):
        await run_app(app, asyncio.Event())


async def test_the_producer_appends_bytes_to_the_stream_that_the_topic_names() -> None:
    class ListBus:
        def __init__(self) -> None:
            self.sent: list[dict[str, list[bytes]]] = []

        async def append(self, messages: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
            self.sent.append(messages)
            return {stream: [b"1700000000000-7"] for stream in messages}

    bus = ListBus()
    app = make_app("test", [MemoryFeed([])], bus=bus)  # type: ignore[arg-type]
    async with running(app):
        told = await (await app.topic("letters").send(value=b"{}"))
        await (await app.topic("letters").send(value=b"[]", partition=3))
    assert bus.sent == [{"letters": [b"{}"]}, {"letters:{3}": [b"[]"]}]
    assert (told.offset, told.timestamp) == (7, 1_700_000_000.0)

    app = make_app("test", [])
    async with running(app):
        with pytest.raises(NotImplementedError, match="publish through"):
            await app.topic("commands").send(value=b"{}")


MODULE = """
import asyncio, sys
from streams.feed import Batch
from streams.transport import make_app

class Ticks:
    topic, partitions, count = "ticks", 1, 0
    async def start(self): pass
    async def stop(self): print("feed stopped", flush=True)
    async def assignment(self):
        await asyncio.sleep(3600 if self.count else 0)
        return frozenset({0})
    async def next(self):
        await asyncio.sleep(0.01)
        self.count += 1
        return Batch((0,), self.count)
    async def rewind(self): pass

app = make_app("tiny", [Ticks()])

@app.agent("ticks")
async def agent(stream):
    async for batch in stream:
        if batch.entries == 3:
            report()

def report():
    print("third batch", flush=True)
"""

KAFKA_REPORT = """
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import AIOKafkaConsumer
from aiokafka.producer import AIOKafkaProducer

made = []
for kind in (AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer):
    kind.__init__ = lambda self, *_, **__: made.append(type(self).__name__)

def report():
    drivers = [name for name in sys.modules if name.startswith("faust.transport.drivers.")]
    drivers += [name for name in sys.modules if name.startswith("confluent")]
    print(f"drivers {drivers} clients {made}, that is all", flush=True)
    print("third batch", flush=True)
"""


def worker(folder: Path, module: str) -> subprocess.Popen[str]:
    """The command `faust -A tiny worker`, in a folder with only that module."""
    (folder / "tiny.py").write_text(module)
    return subprocess.Popen(
        [sys.executable, "-m", "faust", "-A", "tiny", "worker", "-l", "info", "--without-web"],
        cwd=folder,
        # A Kafka address in the environment must not draw the engine to it.
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "BROKER_URL": "kafka://example.org"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The output up to the line with these words."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if words in line:
            return output
    pytest.fail(f"the worker ended without a word of {words!r}:\n{output}")


def test_fausts_command_line_works_the_feeds_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    process = worker(tmp_path, MODULE)
    try:
        output = read_until(process, "third batch")
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert "redis-streams" in output
    assert "Ready" in output  # an INFO line: --loglevel is heard
    assert "feed stopped" in rest
    assert process.returncode == 0
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"tiny.py"}  # no data directory


def test_no_kafka_client_is_made_and_no_kafka_driver_loaded(tmp_path: Path) -> None:
    process = worker(tmp_path, MODULE + KAFKA_REPORT)
    try:
        output = read_until(process, "third batch")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert "drivers [] clients [], that is all" in output


def test_a_worker_whose_feed_cannot_start_exits_with_an_error(tmp_path: Path) -> None:
    broken = MODULE.replace("async def start(self): pass", "async def start(self): raise OSError()")
    process = worker(tmp_path, broken)
    try:
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 1
