"""The promise of a read model: name, version, tables, and `apply`: events in, statements out.

A projection is pure: it turns a whole batch into a few set-based statements. The projector runs
them and moves the projection's cursor in the same transaction, so each event counts exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streams.message import Event

Statement = tuple[str, tuple[Any, ...]]
"""One SQL text with its arguments ($1, $2 …): arrays, one element a row."""


@dataclass(frozen=True, slots=True)
class Projection:
    """One read model; a new version is built beside the old one and switched to."""

    name: str
    version: int
    tables: tuple[str, ...]
    types: frozenset[str]
    """The event types that it wants; empty means all."""
    apply: Callable[[Sequence[Event]], list[Statement]]

    @property
    def consumer(self) -> str:
        """The name under which its cursor is kept."""
        return f"{self.name}@{self.version}"


def columns(rows: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
    """Rows as the arrays, one a column, that `unnest` makes rows of again."""
    return tuple(map(list, zip(*rows, strict=True)))
