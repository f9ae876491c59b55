"""`bench plan`: from a definition to its plan, without servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from aggregates.definition import Definition
from aggregates.definitions.rules import check
from aggregates.definitions.shape import DefinitionShape, TaskShape, to_model
from aggregates.plan import graph
from aggregates.plan import plan as draw
from processors.bench.graphs import layered
from processors.bench.measure import measured
from processors.bench.options import REPEAT, Json, Repeat
from processors.bench.report import Figure, Report, show
from processors.bench.servers import machine
from processors.cli.exits import explained

BARS_MS = {1_000: 20.0, 100_000: 2_000.0}
"""What planning may take, by nodes."""


def plan(
    nodes: Annotated[list[int], typer.Option(min=1, help="Sizes of graphs.")] = [*BARS_MS],  # noqa: B006
    repeat: Repeat = REPEAT,
    as_json: Json = False,
) -> None:
    """Plan random layered graphs: validation, planning, and the plan as a networkx graph.

    Example:  orchestrator bench plan --nodes 1000 --nodes 20000
    """
    with explained(as_json):
        show(measure(nodes, repeat), as_json)


def measure(nodes: Sequence[int], repeat: int) -> Report:
    """Validate and plan graphs of these sizes, so many times each after once to warm up."""
    report = Report("plan", {"nodes": list(nodes), "repeat": repeat}, machine())
    for count in nodes:
        report.figures += _figures(count, repeat)
    return report


def _figures(nodes: int, repeat: int) -> list[Figure]:
    title, bar = f"{nodes:,} nodes", BARS_MS.get(nodes)
    document = layered(nodes)
    definition = validated(document)
    drawn = draw(definition)
    return [
        _figure(f"{title}, validate", lambda: validated(document), repeat),
        _figure(f"{title}, plan", lambda: draw(definition), repeat, bar),
        _figure(f"{title}, networkx graph of it", lambda: graph(drawn), repeat),
    ]


def validated(document: dict[str, Any]) -> Definition:
    """What `aggregates.definition.validate` does, without its limit on the number of tasks."""
    shape = DefinitionShape.model_validate(document)
    definition = to_model(shape, map(TaskShape.model_validate, shape.tasks))
    check(definition, document)
    return definition


def _figure(name: str, work: Callable[[], object], repeat: int, bar: float | None = None) -> Figure:
    work()
    runs = []
    for _ in range(repeat):
        with measured({}) as run:
            work()
        runs.append(run.seconds * 1000)
    return Figure(name, "ms", runs, at_most=bar)
