"""What a worker tells to Prometheus and to probes, and what `orchestrator partitions` prints."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from processors import commands
from processors.agents import simulated_agents
from processors.app import Worker
from processors.client import Client, Rejected
from processors.probes import ready, serving
from processors.settings import Addresses, BadSettings
from processors.standings import CONSUMERS
from processors.worker import run_worker
from tests.processes import ROOT
from tests.system.engine import completed, definition, host, process, settings, until

PARTITIONS = 16


@pytest.fixture
def addresses(database, redis_url):
    return Addresses(database, redis_url)


@pytest.fixture
def port():
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Scraper:
    """Asks a worker what it has to tell."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session = session
        self.base = f"http://127.0.0.1:{port}"

    async def status(self, path: str) -> int:
        """The answer's code; 0 where nobody listens."""
        try:
            async with self.session.get(self.base + path) as answer:
                return answer.status
        except aiohttp.ClientConnectionError:
            return 0

    async def metrics(self) -> dict[tuple, float]:
        """Every sample's value, by its name and labels."""
        async with self.session.get(self.base + "/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await answer.text()
        return {
            (sample.name.removeprefix("agentcore_"), *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@asynccontextmanager
async def worker(addresses: Addresses, port: int):
    """A worker in this loop as `orchestrator worker` runs it; yields its stop and a scraper."""
    told = settings(addresses).model_copy(update={"metrics_port": port})
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(told, stop=stop))
    async with aiohttp.ClientSession() as session:
        scraper = Scraper(session, port)

        async def is_ready():
            assert not task.done(), task.result()
            return await scraper.status("/ready") == 200

        try:
            await until(is_ready, "readiness")
            yield stop, scraper
        finally:
            stop.set()
            await task
        assert await scraper.status("/live") == 0, "it is gone"


async def test_counters_and_standings_are_those_of_the_tables(addresses, port):
    async with worker(addresses, port) as (_, scraper), Client(addresses) as client:
        async with host(addresses, simulated_agents(["worker"], factor=0.0)):
            created = commands.create_workflow(definition=definition(5))
            await client.call(created)
            said = commands.start_execution(created.root)
            await client.call(said)
            with pytest.raises(Rejected, match="no-such-workflow"):
                await client.call(commands.start_execution("no-such-workflow"))
            await completed(client.pool, [said.root])

        def at_(consumer: str, partition: int) -> list[str]:
            return sorted((consumer, str(partition)))

        async def told_all():
            found = await scraper.metrics()
            lags = [
                found["partition_lag", *at_(c, p)] for c in CONSUMERS for p in range(PARTITIONS)
            ]
            return found if sum(lags) == 0 else None

        found = await until(told_all, "no lag")
        assert await scraper.status("/live") == 200
        rows = await client.pool.fetch("SELECT * FROM cursors WHERE consumer = ANY($1)", CONSUMERS)
        heads = {row["partition"]: row["position"] for row in rows if row["consumer"] == "commands"}
        assert sum(heads.values()) > 15, "void: nothing happened"
        for row in rows:
            at = at_(row["consumer"], row["partition"])
            assert found["partition_owner", *at] == 1
            assert found["partition_epoch", *at] == row["epoch"]
            assert found["partition_position", *at] == row["position"]
            assert found["partition_head", *at] == heads[row["partition"]]
        assert found["events_total", "commands"] == sum(heads.values())
        assert found["refusals_total", "commands"] == 1
        assert found["tasks_asked_total", "managers"] == 5
        assert found["mirror_mirrored_total", "commands"] == sum(heads.values())
        for consumer in CONSUMERS:
            assert found["leases_taken_total", consumer] == PARTITIONS
            assert found["leases_lost_total", consumer] == 0
            assert found["members", consumer] == 1
        for name in ("fenced", "unknown_commits", "mirror_rebuilt", "commits"):
            assert (f"{name}_total", "commands") in found
        for consumer in ("managers", "projections"):
            assert found["handled_events_total", consumer] == sum(heads.values())
            assert ("gap_fallbacks_total", consumer) in found
        assert found["ready",] == found["postgres_up",] == 1
        assert ("process_resident_memory_bytes",) in found


async def test_readiness_goes_down_before_anything_is_handed_over(addresses, port, monkeypatch):
    """R14: whoever sends work sees it first; then the leases go."""
    seen: list[tuple[int, bool]] = []
    made: list[Worker] = []

    class Watched(Worker):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)
            leave = self.log.leave

            async def leaving(*arguments):
                at_that_time = await self.log.pool.fetchval(
                    "SELECT bool_and(owner IS NOT NULL) FROM cursors WHERE consumer = $1",
                    arguments[0],
                )
                seen.append((await scraper.status("/ready"), at_that_time))
                await leave(*arguments)

            self.log.leave = leaving

    monkeypatch.setattr("processors.worker.Worker", Watched)
    async with worker(addresses, port) as (stop, scraper):
        assert ready(made[0], stop)
        stop.set()
        assert not ready(made[0], stop), "at once"
    assert seen == [(503, True)] * 3, "while it still owned everything"


async def test_a_worker_whose_postgres_is_away_is_alive_and_not_ready(addresses, port, monkeypatch):
    made = Worker(settings(addresses, lease_s=0.5), ["commands"])
    stop = asyncio.Event()
    async with serving(made, stop, "127.0.0.1", port), aiohttp.ClientSession() as session:
        scraper = Scraper(session, port)
        assert await scraper.status("/live") == 200
        assert await scraper.status("/ready") == 503, "it has not started"
        found = await scraper.metrics()
        assert found["ready",] == found["postgres_up",] == 0
        feed, _ = made.feeds[0]
        await feed.start()
        assert await scraper.status("/ready") == 200
        monkeypatch.setattr(made.log, "_database_url", "postgresql://127.0.0.1:1/x")
        await made.log.close()

        async def not_ready():
            return await scraper.status("/ready") == 503

        await until(not_ready, "the end of its readiness")
        assert await scraper.status("/live") == 200
        await feed.stop()
    await made.close()


async def test_a_port_that_is_taken_is_told_in_a_sentence(addresses, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        told = settings(addresses).model_copy(update={"metrics_port": port})
        with pytest.raises(BadSettings, match=f"AGENTCORE_METRICS_PORT: 127.0.0.1:{port}"):
            await run_worker(told, stop=asyncio.Event())


# orchestrator partitions ------------------------------------------------------------------------


def partitions(addresses: Addresses, *arguments: str, lease_s: str = "1"):
    """The command's end."""
    return subprocess.run(
        [sys.executable, "-m", "processors", "partitions", *arguments],
        cwd=ROOT,
        env=os.environ | addresses.environment() | {"AGENTCORE_LEASE_S": lease_s},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def told(addresses: Addresses, *arguments: str):
    done = await asyncio.to_thread(partitions, addresses, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


async def test_partitions_shows_who_owns_what_and_who_is_dead(addresses):
    """R62: also with the engine down."""
    empty = await asyncio.to_thread(partitions, addresses)
    assert (empty.returncode, "No worker has run" in empty.stdout) == (0, True)
    with process(addresses, lease_s=1.0) as one:
        name = await asyncio.to_thread(one.ready)
        found = await told(addresses)
        assert [row["partition"] for row in found["partitions"]] == list(range(PARTITIONS))
        for row in found["partitions"]:
            assert (row["consumer"], row["owner"], row["alive"]) == ("commands", name, True)
            assert (row["epoch"], row["lag"]) == (1, 0)
        [member] = found["members"]
        assert member == {
            "consumer": "commands",
            "member": name,
            "alive": True,
            "partitions": PARTITIONS,
        }
        quick = await told(addresses, "--quick")
        assert quick["members"][0]["alive"] is None
        shown = await asyncio.to_thread(partitions, addresses)
        assert f"{socket.gethostname()}-{one.pid}" in shown.stdout
        assert f"{PARTITIONS} of {PARTITIONS} owned" in shown.stdout
        assert "commands: 1 of 1 members alive" in shown.stdout
        one.kill()
    dead = await told(addresses)
    assert {row["alive"] for row in dead["partitions"]} == {False}
    assert [member["alive"] for member in dead["members"]] == [False]
    with process(addresses, lease_s=1.0) as two:
        await asyncio.to_thread(two.ready)

        async def taken_over():
            now = await told(addresses)
            return {row["alive"] for row in now["partitions"]} == {True}

        await until(taken_over, "the successor")
        two.finish()
    gone = await told(addresses)
    assert {(row["owner"], row["alive"]) for row in gone["partitions"]} == {(None, False)}
    assert gone["members"] == []
