"""Load by a schedule, and agents by their number: it is measured, and counted right."""

from __future__ import annotations

from processors.bench import servers as servers_
from processors.bench.agents import Sizes, idle_figures, many, waiting
from processors.bench.deployed import Deployed, How
from processors.bench.latency import measure as measure_latency
from tests.bench.conftest import PARTITIONS

TINY = Sizes(agents=2, rate=100, seconds=0.4, long_s=0.3, quiet_s=0.1, fan=2, executions=2)


async def test_each_rate_has_its_percentiles(engine: Deployed) -> None:
    existing = servers_.Place(engine.addresses)
    report = await measure_latency(existing, How(workers=0), [50, 200], 0.3, 1, PARTITIONS)
    found = {figure.name: figure.median for figure in report.figures}
    for rate in ("50/s", "200/s"):
        for what in ("submit to first task", "answer to next task", "submit to end"):
            middle, worst = found[f"{rate}, {what}, p50"], found[f"{rate}, {what}, p99.9"]
            assert middle is not None
            assert worst is not None
            assert 0 < middle <= worst
        assert found[f"{rate}, done"]


async def test_agents_are_counted_at_work_and_their_shares_of_it(
    engine: Deployed, place: servers_.Place
) -> None:
    idle, rounds = await waiting(engine, place, TINY, 1)
    resting = idle_figures(TINY.agents, idle, rounds, engine, place)
    assert "2 agents idle, CPU of engine" in {figure.name for figure in resting if figure.runs}
    found = {figure.name: figure.median for figure in await many(engine, place, TINY, 1)}
    assert found["agents at work at once"] == 2
    assert found["100/s, tasks an agent, mean"] == 20  # 0.4 s of 100 a second, over two agents
    fewest, most = found["100/s, tasks an agent, fewest"], found["100/s, tasks an agent, most"]
    assert (fewest, most) == (20, 20)  # R13: spread evenly
