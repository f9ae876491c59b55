"""The works that engines are compared by: they run, count every task, and refuse what is void."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import pairwise

import orjson
import pytest
from typer.testing import CliRunner

from processors import commands
from processors.bench import command
from processors.bench import servers as servers_
from processors.bench.deployed import Deployed, How, deployed
from processors.bench.drive import Driver
from processors.bench.graphs import chain
from processors.bench.notes import percentile
from processors.bench.peers import figures_of, measure, one_round
from processors.bench.works import WORKS, Work
from processors.cli.exits import Failed
from processors.supervisor import ChildFailed
from tests.bench.conftest import PARTITIONS
from tests.system.engine import until

BY_NAME = {work.name: work for work in WORKS}
SIZES = {"w1": 6, "w1-idle": 2, "w2": 1, "w3": 3, "w4": 20}


async def test_every_work_runs_and_measures_what_it_says(
    engine: Deployed, place: servers_.Place
) -> None:
    for name, executions in SIZES.items():
        figures = await figures_of(engine, place, BY_NAME[name], executions, 1)
        assert all(min(f.runs) > 0 for f in figures if "CPU" not in f.name and f.runs), name
        said = [figure.name for figure in figures]
        for process in ("engine", "projector", "agents", "client"):
            assert f"{name}, CPU of {process}" in said


async def test_arrivals_count_from_their_own_moments(
    engine: Deployed, place: servers_.Place
) -> None:
    work = replace(BY_NAME["w3"], submit=lambda driver, many: driver.scheduled(many, 200.0))
    driver = await engine.driver(work.document(engine.role))
    round_ = await one_round(engine, place, driver, work, 20)
    due = sorted(trip.due for trip in round_.trips)
    assert {after - before for before, after in pairwise(due)} == {5_000_000}
    firsts = zip(round_.first_ms(), round_.trips, strict=True)
    assert all(0 < first < trip.ms for first, trip in firsts)


async def test_a_run_that_lost_a_task_does_not_count(
    engine: Deployed, place: servers_.Place
) -> None:
    driver = await engine.driver(chain(2, engine.role))
    expecting_more = Driver(driver.client, driver.ends, driver.workflow_id, driver.tasks + 1)
    with pytest.raises(Failed, match="9 tasks should have completed; the log has 6"):
        await one_round(engine, place, expecting_more, BY_NAME["w1"], 3)


async def test_an_execution_that_does_not_complete_ends_the_measurement(engine: Deployed) -> None:
    driver = await engine.driver(chain(2, "served-by-nobody"))
    start = commands.start_execution(driver.workflow_id)
    ended = driver.ends.expect(start.root)
    await engine.client.call(start)
    await engine.client.call(commands.cancel_execution(start.root))
    with pytest.raises(Failed, match="ExecutionCancelled"):
        await ended


async def test_a_process_that_ends_ends_the_measurement(engine: Deployed) -> None:
    measuring = deployed(engine.addresses, How(workers=0))
    with pytest.raises(ChildFailed, match="agents"):
        await _until_killed(measuring)


async def _until_killed(measuring: AbstractAsyncContextManager[Deployed]) -> None:
    async with measuring as more:
        await more.driver(chain(1, more.role))
        os.kill(more.supervisor.pids["agents"], signal.SIGKILL)
        await asyncio.Event().wait()


async def test_workers_that_run_already_are_measured(engine: Deployed) -> None:
    existing = servers_.Place(engine.addresses)
    report = await measure(existing, [BY_NAME["w1"]], How(workers=0), 3, 1, PARTITIONS)
    rate, *cpu = report.figures
    assert (rate.name, len(rate.runs)) == ("w1, tasks a second", 1)
    assert {figure.name for figure in cpu if figure.runs} == {
        "w1, CPU of agents",
        "w1, CPU of client",
    }
    gone = "SELECT count(*) FROM events WHERE type = 'AgentDeregistered'"

    async def forgotten() -> bool:
        return await engine.client.pool.fetchval(gone) >= How().agents

    await until(forgotten, "the end of the agents")  # a deployment that goes on lists none


def test_existing_workers_need_servers_that_are_named() -> None:
    done = CliRunner().invoke(command.app, ["w1", "--existing", "--json"])
    assert done.exit_code == 1
    assert "--database-url" in orjson.loads(done.stdout)["detail"]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_each_work_is_a_command_of_its_own() -> None:
    names = [work.name for work in WORKS]
    assert names == ["w1", "w1-idle", "w2", "w3", "w4"]
    assert all(isinstance(work, Work) and work.executions > 0 for work in WORKS)
