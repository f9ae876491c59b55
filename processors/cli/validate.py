"""`orchestrator validate`: what the engine would say of a file, without an engine."""

from __future__ import annotations

from typing import Any

import typer

from processors.cli import output
from processors.cli.exits import Code, explained
from processors.cli.files import Source, read_sources

PATH_TASKS_SHOWN = 6


def validate(
    file: str = typer.Argument(help="JSON or YAML, also .gz; `-` reads standard input."),
    as_json: bool = typer.Option(False, "--json", help="Print the plan as JSON."),
) -> None:
    """Check a workflow file and show its plan; nothing is stored and no engine is needed.

    A list of workflows is checked one by one. A refusal is printed on stdout as a JSON problem
    (RFC 9457: code, detail, pointer), and the exit code is 1.

    Example:  orchestrator validate workflow.yaml
    """
    with explained():
        sources = sources_of(file)
        results = [_check(source) for source in sources]
        refused = [result for result in results if "problem" in result]
        if as_json:
            output.as_json(results if _is_list(sources) else _result(results[0]))
        else:
            for result in refused:
                output.as_json(_result(result))
            _show([result for result in results if "problem" not in result])
        if refused:
            what = f"{len(refused)} of {len(results)} workflows" if _is_list(sources) else file
            output.note(f"{what} refused: {refused[0]['problem']['detail']}")
            raise typer.Exit(Code.REFUSED)


def sources_of(file: str) -> list[Source]:
    """The definitions in a file; a file that cannot be read is wrong usage, a refusal ends here."""
    from aggregates.problem import Refused

    try:
        return read_sources(file)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except Refused as refused:
        output.as_json(refused.problem())
        output.note(f"{file} refused: {refused.detail}")
        raise typer.Exit(Code.REFUSED) from None


def _is_list(sources: list[Source]) -> bool:
    return not sources or sources[0].place is not None


def _result(result: dict[str, Any]) -> Any:
    """The plan, or the problem as it is (a list's items say by their pointer which they are)."""
    return result.get("problem", result)


def _check(source: Source) -> dict[str, Any]:
    from aggregates.plan import plan
    from aggregates.problem import Refused
    from processors.plan_summary import summary

    try:
        return summary(plan(source.check()))
    except Refused as refused:
        return {"problem": refused.problem()}


def _show(plans: list[dict[str, Any]]) -> None:
    if len(plans) == 1:
        one, path = plans[0], plans[0]["critical_path"]
        shown = path["ids"][:PATH_TASKS_SHOWN]
        more = path["tasks"] - len(shown)
        arrow = " → ".join(shown) + (f" → … {more} more" if more else "")
        output.facts(
            [
                ("workflow", f"{one['name']} {one['version']} ({one['pattern']})"),
                ("tasks", one["tasks"]),
                ("edges", one["edges"]),
                ("roles", len(one["roles"])),
                ("phases", f"{one['phases']}, the widest with {one['widest_phase']:,} tasks"),
                ("critical path", f"{path['seconds']:,.1f} s over {path['tasks']:,} tasks"),
                ("", arrow),
            ]
        )
    elif plans:
        columns = ("workflow", "tasks#", "edges#", "roles#", "phases#", "critical path#")
        lines = [
            (
                one["name"],
                one["tasks"],
                one["edges"],
                len(one["roles"]),
                one["phases"],
                f"{one['critical_path']['seconds']:,.1f} s",
            )
            for one in plans
        ]
        output.rows(columns, lines)
