"""The capacity model adds up, and memory is measured by the execution."""

from __future__ import annotations

import pytest

from processors.bench.capacity import cost_of, figures, rate_of
from processors.bench.deployed import Deployed
from processors.bench.drive import Trip
from processors.bench.measure import Run
from processors.bench.memory import deep_bytes, growth
from processors.bench.works import Round

SECOND = 1_000_000_000


def done(seconds: int, **cpu: float) -> tuple[Round, int]:
    """A round of 100,000 events."""
    run = Run(float(seconds), {name.replace("_", " "): used for name, used in cpu.items()})
    return Round(run, [Trip("x", 0, seconds * SECOND)], {}, 10), 100_000


def test_all_workers_are_one_component() -> None:
    rounds = [done(2, engine=1.0, engine_2=0.5, redis=0.5)]
    assert cost_of(rounds) == pytest.approx({"engine": 15.0, "redis": 5.0})


def test_what_is_used_up_first_bounds_the_rate() -> None:
    costs = {"engine": 10.0, "projector": 2.0, "redis": 4.0, "postgres": 4.0}
    assert rate_of(costs, workers=1, cores=64) == pytest.approx(100_000)  # one core of the engine
    assert rate_of(costs, workers=8, cores=64) == pytest.approx(250_000)  # the core that Redis has
    assert rate_of(costs, workers=8, cores=2) == pytest.approx(100_000)  # all of the machine


def test_the_model_says_cores_by_rate_and_is_checked() -> None:
    found = {
        1: [done(2, engine=1.0, redis=1.0)],
        2: [done(1, engine=0.6, engine_2=0.4, redis=1.0)],
    }
    said = {figure.name: figure.median for figure in figures(found, cores=2)}
    assert said["1 worker, by the model"] == said["2 workers, by the model"] == 100_000
    assert said["1 worker, measured to model"] == pytest.approx(0.5)
    assert said["2 workers, measured to model"] == pytest.approx(1.0)
    assert said["events by CPU second of workers, two to one"] == pytest.approx(1.0)
    assert said["100,000 events/s, all"] == pytest.approx(2.0)
    assert said["1,000,000 events/s, engine"] == pytest.approx(10.0)


async def test_memory_is_measured_by_execution_under_way(engine: Deployed) -> None:
    found = {f.name: f for f in await growth(engine, "small", 10, 2, 1, own=True)}
    assert len(found["small, engine grows by"].runs) == 1
    state = found["small, its state as objects"].median
    assert state is not None
    assert 1 < state < 1_000  # kB; R13: < 50 MB, of 1,000 tasks


def test_a_deep_size_counts_each_object_once_and_no_code() -> None:
    text = "x" * 1_000
    once, twice = deep_bytes([text]), deep_bytes([text, text])
    assert 1_000 < once < twice < once + 20
    assert deep_bytes([text, print, pytest], without=[text]) < 200
