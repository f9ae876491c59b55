"""The options that benchmarks share, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Repeat = Annotated[
    int, typer.Option(min=1, help="Measured runs, after one to warm up; the median counts.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="Measure on this PostgreSQL (in a database of its own), not an embedded one."
    ),
]
RedisUrl = Annotated[
    str | None, typer.Option(help="Measure on this Redis, whose logical database must be empty.")
]
Partitions = Annotated[int, typer.Option(min=1, max=4096, help="Partitions of the log.")]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes that decide and dispatch; a projector comes besides.")
]
Existing = Annotated[
    bool,
    typer.Option(
        "--existing",
        help="Start no workers: those of the given servers are measured, on their own database.",
    ),
]

REPEAT = 3
