"""The engine with one of its guards taken out, in a child: what protects us must be seen to.

Each mutation names the guard that it takes out. Guards mask each other, so a scenario may need a
second one out as well to show what the first one does alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from processors.mirroring import Mirroring
from processors.partition_state import PartitionState
from streams.logs import sql

EPOCH = (("c.epoch = given.epoch AND ", ""), ("c.epoch = g.epoch AND ", ""))
HEAD = ((" AND c.position = given.head", ""), (" AND c.position = g.head", ""))


def fence() -> None:
    """A commit asks for no epoch: who has lost the lease may write."""
    _edit(EPOCH)


def compare_and_set() -> None:
    """A commit asks for no head: it is appended to whatever the writer believes."""
    _edit(HEAD)


def dedupe() -> None:
    """No command is remembered: a repeat is decided again."""
    PartitionState.remember = lambda *_: None  # type: ignore[method-assign]


def re_mirror() -> None:
    """What a predecessor has committed and not mirrored stays out of the mirror."""

    async def nothing(self: Mirroring, part: Any, head: int | None = None) -> None:
        part.mirrored = part.cursor.position if head is None else head

    Mirroring.catch_up = nothing  # type: ignore[method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (fence, compare_and_set, dedupe, re_mirror)
}


def _edit(edits: tuple[tuple[str, str], ...]) -> None:
    """Change the statement of a commit, and only that; fails where nothing changes."""
    for name in ("APPEND", "APPEND_BESIDE"):
        text = getattr(sql, name)
        for old, new in edits:
            assert old in text, f"{name} does not have {old!r}"
            text = text.replace(old, new)
        setattr(sql, name, text)
