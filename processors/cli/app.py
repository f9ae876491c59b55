"""The commands of `orchestrator`, listed once; what a command needs it imports when it runs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from processors.cli.agents import agents
from processors.cli.api import api
from processors.cli.audit import app as audit
from processors.cli.bench import bench
from processors.cli.dead_letters import app as dead_letters
from processors.cli.demo import demo
from processors.cli.events import events
from processors.cli.exits import CODES
from processors.cli.explain import explain
from processors.cli.migrate import migrate
from processors.cli.partitions import partitions
from processors.cli.publish import publish
from processors.cli.replay import replay
from processors.cli.schema import app as schema
from processors.cli.status import status
from processors.cli.steering import answer, cancel, pause, resume, retry, signal
from processors.cli.submit import submit
from processors.cli.tenants import app as tenants
from processors.cli.tenants import keys
from processors.cli.token import token
from processors.cli.up import up
from processors.cli.validate import validate
from processors.cli.verify import verify
from processors.cli.watch import watch
from processors.cli.worker import worker

app = typer.Typer(
    name="orchestrator",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=CODES)
def orchestrator() -> None:
    """Coordinate multi-agent workflows: one log, cut into partitions; all else is a fold over it.

    Begin with [bold]orchestrator demo[/bold]: it needs no server and no configuration.
    """


# In the order in which people meet them.
LISTED: tuple[Callable[..., None], ...] = (
    *(demo, up, migrate, worker, api, submit, validate, status, watch, explain),
    *(pause, resume, cancel, signal, answer, retry),
    *(events, replay, verify, partitions, publish, token),
)
for command in LISTED:
    app.command(epilog=CODES)(command)

app.add_typer(dead_letters, name="dead-letters", epilog=CODES)
app.add_typer(audit, name="audit", epilog=CODES)
app.add_typer(tenants, name="tenant", epilog=CODES)
app.add_typer(schema, name="schema", epilog=CODES)
app.add_typer(keys, name="keys", epilog=CODES)
app.command(hidden=True, epilog=CODES)(agents)
# Its options, --help too, are those of its own commands, which are imported when it is called.
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
app.command(context_settings=PASSED_ON)(bench)
