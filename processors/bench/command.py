"""`orchestrator bench`: the benchmarks, listed once; a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

import typer

from processors.bench.agents import agents
from processors.bench.capacity import capacity
from processors.bench.crew import crew
from processors.bench.flat import flat
from processors.bench.latency import latency
from processors.bench.log import log
from processors.bench.memory import memory
from processors.bench.peers import COMMANDS as PEERS
from processors.bench.plan import plan
from processors.bench.projection import projection
from processors.bench.replay import replay
from processors.bench.workflow import workflow
from processors.cli.exits import CODES

BENCHMARKS: tuple[Callable[..., None], ...] = (
    *PEERS,
    *(latency, agents),
    *(log, plan, workflow, replay, projection),
    *(flat, memory, capacity),
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=CODES)
def bench() -> None:
    """Measure the engine on this machine; every figure is the median of several runs.

    Without --database-url and --redis-url, PostgreSQL and Redis are started for the measurement in
    a temporary directory (TMPDIR), as durable as `orchestrator up` runs them. Times mean little
    while the machine has other work: the load average is printed with them.
    """


for benchmark in BENCHMARKS:
    app.command(benchmark.__name__, epilog=CODES)(benchmark)
app.command(hidden=True)(crew)
