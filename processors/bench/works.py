"""The pieces of work that engines are compared by: what each submits, and what it reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from processors.bench.drive import Driver, Trip
from processors.bench.graphs import chain, fan_and_join
from processors.bench.measure import Run
from processors.bench.notes import percentile
from processors.bench.report import Figure

PLAIN: Mapping[float, float | None] = {0.5: None, 0.99: None}

Taken = dict[str, dict[str, tuple[int, int]]]
"""Per execution and task: the agent's number, and the nanosecond at which it had the task."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measured round of a piece of work."""

    run: Run
    trips: list[Trip]
    taken: Taken
    tasks: int

    @property
    def seconds(self) -> float:
        """From the first submission to the last end."""
        first = min(trip.due for trip in self.trips)
        return (max(trip.ended for trip in self.trips) - first) / 1e9

    @property
    def tasks_in_all(self) -> int:
        """Of all its executions."""
        return self.tasks * len(self.trips)

    def first_ms(self) -> list[float]:
        """Of each execution: from its submission until an agent had its first task."""
        return [
            (min(at for _, at in self.taken[trip.execution_id].values()) - trip.due) / 1e6
            for trip in self.trips
        ]

    def steps_ms(self) -> list[float]:
        """Of chains, from agent to agent: one answers at once, until one has the next task."""
        found = []
        for trip in self.trips:
            moments = sorted(at for _, at in self.taken[trip.execution_id].values())
            found += [(after - before) / 1e6 for before, after in pairwise(moments)]
        return found


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work, with bars for its figures where there are any."""

    name: str
    about: str
    document: Callable[[str], dict[str, Any]]
    executions: int
    submit: Callable[[Driver, int], Awaitable[list[Trip]]]
    figures: Callable[[list[Round]], list[Figure]]


def quantiles(
    name: str, rounds: list[list[float]], bars: Mapping[float, float | None] = PLAIN
) -> list[Figure]:
    """Percentiles of each round, in ms, with what each may be at most."""
    return [
        Figure(
            f"{name}, p{share * 100:g}",
            "ms",
            [percentile(one, share) for one in rounds],
            at_most=bar,
        )
        for share, bar in bars.items()
    ]


def _rate(rounds: list[Round]) -> list[Figure]:
    runs = [one.tasks_in_all / one.seconds for one in rounds]
    return [Figure("tasks a second", "tasks/s", runs, at_least=5_000)]


def _seconds(at_most: float) -> Callable[[list[Round]], list[Figure]]:
    def figures(rounds: list[Round]) -> list[Figure]:
        return [Figure("all of it", "s", [one.seconds for one in rounds], at_most=at_most)]

    return figures


def _steps(rounds: list[Round]) -> list[Figure]:
    return quantiles("step", [one.steps_ms() for one in rounds], {0.5: 1.5, 0.99: 3.0})


def _firsts(rounds: list[Round]) -> list[Figure]:
    name = "submit to first task"
    return quantiles(name, [one.first_ms() for one in rounds], {0.5: 2.5, 0.99: 5.0})


def _alone(pause_s: float) -> Callable[[Driver, int], Awaitable[list[Trip]]]:
    return lambda driver, executions: driver.at_once(executions, 1, pause_s)


WORKS = (
    Work(
        "w1",
        "200 workflows of 10 tasks one after another, 50 at a time",
        lambda role: chain(10, role),
        200,
        lambda driver, executions: driver.at_once(executions, min(50, executions)),
        _rate,
    ),
    Work(
        "w1-idle",
        "workflows of 10 tasks one after another, one at a time: from one task to the next",
        lambda role: chain(10, role),
        100,
        _alone(0.0),
        _steps,
    ),
    Work(
        "w2",
        "one workflow: 1,000 tasks at once, and one that waits for them all",
        lambda role: fan_and_join(1_000, role),
        1,
        _alone(0.0),
        _seconds(0.4),
    ),
    Work(
        "w3",
        "idle: from submitting a workflow until an agent has its first task",
        lambda role: chain(1, role),
        200,
        _alone(0.005),
        _firsts,
    ),
    Work(
        "w4",
        "1,000 workflows of 3 tasks one after another, submitted at once, until all have ended",
        lambda role: chain(3, role),
        1_000,
        lambda driver, executions: driver.at_once(executions, executions),
        _seconds(0.8),
    ),
)
BY_NAME = {work.name: work for work in WORKS}
