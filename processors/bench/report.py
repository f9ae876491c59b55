"""What a benchmark found: figures with their median and spread, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from processors.bench.measure import Run
from processors.cli import output

DIGITS = 3  # a measurement knows no more of itself


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over the repeats; a bar that it should reach, where there is one."""

    name: str
    unit: str
    runs: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float | None:
        """The middle run; None where nothing could be measured."""
        return median(self.runs) if self.runs else None

    @property
    def met(self) -> bool | None:
        """Whether the bar was reached; None where there is none."""
        middle = self.median
        if middle is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or middle >= self.at_least) and (
            self.at_most is None or middle <= self.at_most
        )

    def described(self) -> dict[str, Any]:
        """As it is printed with --json."""
        low, high = (min(self.runs), max(self.runs)) if self.runs else (None, None)
        said = {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": low,
            "high": high,
            "runs": list(self.runs),
        }
        bars = {"at_least": self.at_least, "at_most": self.at_most, "met": self.met}
        return said | {name: value for name, value in bars.items() if value is not None}


@dataclass(slots=True)
class Report:
    """A benchmark's figures, with what they were measured on."""

    bench: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """As it is printed with --json."""
        return {
            "bench": self.bench,
            "settings": self.settings,
            "machine": self.machine,
            "figures": [figure.described() for figure in self.figures],
            "warnings": self.warnings,
        }


def cpu_figures(
    name: str, processes: Iterable[str], runs: Sequence[Run], events: int, unit: str = "event"
) -> list[Figure]:
    """µs of CPU per event (or other unit), of each process."""
    return [
        Figure(
            f"{name}, CPU of {process}",
            f"µs/{unit}",
            [run.cpu[process] / events * 1e6 for run in runs if process in run.cpu],
        )
        for process in processes
    ]


def show(report: Report, as_json: bool) -> None:
    """Print a report for programs or for people."""
    if as_json:
        output.as_json(report.described())
        return
    output.facts(_flat(report.machine))
    output.facts(_flat(report.settings))
    output.rows(
        ("figure", "median#", "low#", "high#", "unit", "bar", ""),
        [_line(figure) for figure in report.figures],
    )
    for sentence in report.warnings:
        output.note(sentence)


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.replace("_", " "), value) for name, value in facts.items()]


def _line(figure: Figure) -> tuple[str, ...]:
    said = figure.described()
    bar = ""
    if figure.at_least is not None:
        bar = f"≥ {_number(figure.at_least)}"
    elif figure.at_most is not None:
        bar = f"≤ {_number(figure.at_most)}"
    verdict = {True: "met", False: "missed", None: ""}[figure.met]
    spread = (_number(said[column]) for column in ("median", "low", "high"))
    return (figure.name, *spread, figure.unit, bar, verdict)


def _number(value: float | None) -> str:
    """Three digits that count, no exponent."""
    if value is None:
        return "–"
    if abs(value) >= 10**DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{DIGITS}g}"
