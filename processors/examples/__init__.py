"""Small example workflows that ship with the engine, to try it with."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, NamedTuple, cast


class Example(NamedTuple):
    """One example: its name, its text, and the format that text is in."""

    name: str
    source: str
    format: Literal["json", "yaml"]


def examples() -> list[Example]:
    """Every example, by name."""
    found = [
        Example(name, item.read_text("utf-8"), cast(Literal["json", "yaml"], kind))
        for item in files(__name__).iterdir()
        for name, _, kind in [item.name.rpartition(".")]
        if kind in ("json", "yaml")
    ]
    return sorted(found)
