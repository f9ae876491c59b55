"""The benchmarks run and count right, at small sizes; how fast they are is not tested."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from aggregates.definition import validate
from aggregates.plan import plan
from processors.bench import command, servers
from processors.bench.backlog import SHAPES, make_backlog
from processors.bench.fleet import names
from processors.bench.graphs import fan_out, layered, phased
from processors.bench.log import Shape
from processors.bench.log import measure as measure_log
from processors.bench.measure import OURSELVES, children, cpu_seconds, measured
from processors.bench.plan import measure as measure_plan
from processors.bench.report import Figure, Report
from processors.bench.workflow import made
from processors.bench.workflow import measure as measure_workflow
from processors.cli.exits import Failed
from processors.settings import Addresses
from streams.codec import decode_command
from streams.members import weight
from streams.partition import partition_of
from tests.servers import Endpoints

PARTITIONS = 4


@pytest.fixture
def place(servers: Endpoints, redis_url: str) -> Any:
    """Given servers, as `--database-url` and `--redis-url` name them."""
    return places(servers.database_url, redis_url)


def places(database_url: str, redis_url: str) -> servers.Place:
    """A place whose servers' processes are out of sight."""
    return servers.Place(Addresses(database_url, redis_url))


def sane(report: Report) -> dict[str, Figure]:
    """Every figure was measured, and is above zero where it is not of CPU."""
    for figure in report.figures:
        if "CPU" not in figure.name:
            assert len(figure.runs) == report.settings["repeat"]
            assert min(figure.runs) > 0
    assert orjson.loads(orjson.dumps(report.described()))["bench"] == report.bench
    return {figure.name: figure for figure in report.figures}


def test_plan_is_measured_without_servers() -> None:
    figures = sane(measure_plan([50, 200], repeat=2))
    assert list(figures) == [
        f"{nodes} nodes, {what}"
        for nodes in (50, 200)
        for what in ("validate", "plan", "networkx graph of it")
    ]


@pytest.mark.parametrize(("shape", "workers"), [(Shape.START, 1), (Shape.COMPLETE, 2)])
async def test_the_log_takes_every_event_of_both_loops(
    place: servers.Place, shape: Shape, workers: int
) -> None:
    sizes = {"commands": 240, "partitions": PARTITIONS, "repeat": 1, "workers": workers}
    report = await measure_log(place, [shape], sizes)  # counts the table, the heads, the mirror
    figures = sane(report)
    assert report.settings[f"commands_{shape}"] == 240
    assert f"1 → {SHAPES[shape]}, engine to bare loop" in figures


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_have_names_by_which_their_shares_are_equal(workers: int) -> None:
    owners = [
        max(names(workers, 12), key=lambda name: weight(name, partition)) for partition in range(12)
    ]
    assert set(Counter(owners).values()) == {12 // workers}


@pytest.mark.parametrize("in_process", [True, False])
async def test_a_workflow_is_run_to_its_end(place: servers.Place, in_process: bool) -> None:
    report = await measure_workflow(place, made(40), 1, PARTITIONS, in_process)
    figures = sane(report)
    # 40 times scheduled, started, completed; 6 phases; the execution started and completed
    assert report.settings["events"] == 3 * 40 + 6 + 2
    names = {"python"} if in_process else {"engine", "projector", "agents", "client"}
    seen = {name.removeprefix("workflow, CPU of ") for name, f in figures.items() if f.runs}
    assert names <= seen
    assert "postgres" not in seen  # it may run anywhere


async def test_a_redis_in_use_is_left_alone(place: servers.Place) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(place.addresses.redis_url) as redis:
        await redis.set("somebody's", "own")
        with pytest.raises(Failed, match="not empty"):
            async with servers.scratch(place, PARTITIONS):
                pass
        assert await redis.get("somebody's") == b"own"


async def test_nothing_is_measured_without_durability(
    place: servers.Place, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await servers.described(place)
    name = database.rsplit("/", 1)[1]
    async with servers.connected(database) as connection:
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(Failed, match="synchronous_commit"):
        await servers.described(places(database, place.addresses.redis_url))


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_backlog_is_spread_evenly_and_sent_where_it_belongs(shape: str) -> None:
    backlog = make_backlog(shape, 8_100, PARTITIONS)
    assert {len(messages) for messages in backlog.messages.values()} == {2_024}
    assert backlog.events == 4 * 2_024 * SHAPES[shape]
    assert len(set(backlog.executions)) == 8
    for partition, messages in backlog.messages.items():
        for sent in map(decode_command, messages):
            assert partition_of(sent.root, PARTITIONS) == partition


def test_graphs_have_the_sizes_that_were_asked_for() -> None:
    assert len(plan(validate(layered(500))).ids) == 500
    assert layered(500) == layered(500)
    assert plan(validate(fan_out(70, 3))).definition.max_parallel_tasks == 3
    like_ligo = plan(validate(phased(1_000)))
    assert like_ligo.phase_sizes == (229, 229, 20, 251, 251, 20)
    assert plan(validate(phased(3))).phases == 6


def test_cpu_is_counted_of_ourselves_and_of_others() -> None:
    with measured({"python": OURSELVES, "nobody": None}) as run:
        sum(range(1_000_000))
    assert 0 < run.cpu["python"] <= run.seconds * 1.5
    assert "nobody" not in run.cpu
    assert cpu_seconds(1) >= 0
    assert all(isinstance(line, str) for line in children().values())


def test_a_figure_says_whether_its_bar_was_met() -> None:
    assert Figure("f", "s", [3, 1, 2]).median == 2
    assert Figure("f", "s", [3, 1, 2]).met is None
    assert Figure("f", "s", [3, 1, 2], at_most=2).met
    assert not Figure("f", "s", [3, 1, 2], at_least=2.5).met
    assert Figure("f", "s", []).described()["median"] is None


def test_the_command_line_lists_measures_and_prints_json() -> None:
    runner = CliRunner()
    listed = runner.invoke(command.app, ["--help"])
    assert all(benchmark.__name__ in listed.output for benchmark in command.BENCHMARKS)
    table = runner.invoke(command.app, ["plan", "--nodes", "60", "--repeat", "1"])
    assert table.exit_code == 0
    assert "60 nodes, plan" in table.output
    done = runner.invoke(command.app, ["plan", "--nodes", "60", "--repeat", "1", "--json"])
    assert orjson.loads(done.stdout)["settings"] == {"nodes": [60], "repeat": 1}
    one = runner.invoke(command.app, ["log", "--database-url", "postgresql://nowhere"])
    assert one.exit_code == 1
