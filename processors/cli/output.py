"""What commands print: JSON for programs on stdout, tables for people, mistakes on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

PIPED_COLUMNS = 240  # `| grep` wants an id whole, not folded at 80


def console(stderr: bool = False) -> Console:
    """Where tables and live views go; plain text where it is not a terminal."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal:
        found.width = PIPED_COLUMNS
    return found


def as_json(value: Any, *, line: bool = False) -> None:
    """One JSON document on stdout; `line` puts it on one line, for many of them."""
    import orjson

    option = orjson.OPT_NON_STR_KEYS | (0 if line else orjson.OPT_INDENT_2)
    typer.echo(orjson.dumps(value, default=str, option=option))


def error(sentence: str) -> None:
    """A mistake, on stderr."""
    typer.secho(sentence, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)


def warning(sentence: str) -> None:
    """Something that somebody should change, on stderr, in yellow."""
    typer.secho(sentence, err=True, fg=typer.colors.YELLOW if sys.stderr.isatty() else None)


def note(sentence: str) -> None:
    """Something beside the result, on stderr, so that the result can be piped."""
    typer.echo(sentence, err=True)


def without_tokens() -> None:
    """That nobody is asked who he is, on stderr, so that nobody forgets it."""
    if "AGENTCORE_SUPERVISED" in os.environ:
        return
    sentence = (
        "AGENTCORE_AUTH=none: whoever reaches Redis or the API may do everything, as the one tenant"
        " `default`. Set AGENTCORE_AUTH=token where others can reach them."
    )
    typer.secho(sentence, err=True, fg=typer.colors.YELLOW)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, "" if value is None else _escaped(value))
    console().print(table)


def rows(columns: Sequence[str], lines: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table; columns whose name ends in `#` are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.removesuffix("#"),
            justify="right" if column.endswith("#") else "left",
            overflow="fold",
        )
    for line in lines:
        table.add_row(*("" if value is None else _escaped(value) for value in line))
    console().print(table)


def _escaped(value: Any) -> str:
    """Names come from outside: no markup of theirs is obeyed, no control character is printed."""
    from rich.markup import escape

    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return escape(plain(text))


def plain(text: str) -> str:
    """A text from outside without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
