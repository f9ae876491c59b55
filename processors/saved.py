"""States as they are saved: sealed, so that what is damaged or of another version is noticed.

What cannot be used is folded from the log again: a snapshot shortens recovery and decides nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from zlib import crc32

import orjson

from streams.log import SnapshotRow

_HEAD = len('{"checksum":"01234567",')


class Unusable(Exception):
    """A saved state that is damaged, or that another version has written; fold it anew."""


class Saved(NamedTuple):
    """What was sealed."""

    state: Any
    tenant: str


def seal(subject: str, version: int, form: str, state: Any, tenant: str = "") -> SnapshotRow:
    """A state to save, as of a version; `form` names whose state it is, and its shape's version."""
    rest = orjson.dumps({"form": form, "tenant": tenant, "state": state})[1:]
    checksum = b'{"checksum":"%08x",' % _checksum(subject, version, rest)
    return SnapshotRow(subject, version, checksum + rest)


def unseal(row: SnapshotRow, form: str) -> Saved:
    """What `seal` was given; raises Unusable."""
    rest = row.state[_HEAD:]
    if row.state[:_HEAD] != b'{"checksum":"%08x",' % _checksum(row.subject, row.version, rest):
        raise Unusable("its checksum is wrong")
    said = orjson.loads(row.state)
    if said["form"] != form:
        raise Unusable(f"it is {said['form']!r}, not {form!r}")
    return Saved(said["state"], said["tenant"])


def spoiled(subject: str, version: int) -> SnapshotRow:
    """A row that nobody can use: whoever loads it folds the log."""
    return SnapshotRow(subject, version, b"{}")


def _checksum(subject: str, version: int, rest: bytes) -> int:
    """Over the bytes and whose they are: a row of somebody else, or of another time, is no good."""
    return crc32(rest, crc32(f"{subject}@{version}".encode()))
