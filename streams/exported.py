"""The check of an export (see `export`): every hash is recomputed, without a database."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

from streams.chain import checksums_of, link
from streams.export import digest_of

DAMAGES_MAX = 100  # that are named; behind one, its partition is not followed any more


@dataclass(slots=True)
class Damage:
    """A line that is not as it was, or the one before which something is missing."""

    line: int
    reason: str


@dataclass(slots=True)
class Checked:
    """What an export holds, and what is wrong with it."""

    events: int = 0
    commits: int = 0
    reads: int = 0
    digest: str = ""
    damages: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every line is as it was written, and none is missing."""
        return not self.damages


@dataclass(slots=True)
class _Part:
    """How far one partition was followed."""

    position: int = 0
    commits: int = 0
    hash: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    broken: bool = False


def check(lines: Iterable[bytes]) -> Checked:
    """Recompute everything that can be; every damage is named, the first of each partition."""
    checker = _Checker()
    for number, raw in enumerate(lines, 1):
        if raw := raw.rstrip(b"\r\n"):
            checker.see(number, raw)
    checker.finish()
    return checker.checked


class _Checker:
    def __init__(self) -> None:
        self.checked = Checked()
        self._parts: dict[int, _Part] = {}
        self._reads = _Part()
        self._end: dict[str, Any] | None = None
        self._last = 0

    def see(self, line: int, raw: bytes) -> None:
        """One line further."""
        if self._end is not None:
            self._damage(line, "it stands behind the end")
            return
        self._last = line
        try:
            said = orjson.loads(raw)
            match said["type"]:
                case "agentcore.Commit":
                    self._commit(line, said)
                case "agentcore.Read":
                    self._read(line, said)
                case "agentcore.End":
                    self._end = said["data"]
                case _:
                    self._event(line, raw, said)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._damage(line, "it is no line of an export")

    def _event(self, line: int, raw: bytes, said: dict[str, Any]) -> None:
        part = self._part(int(said["partition"]))
        if part.broken:
            return
        expected = part.position + 1
        if said["position"] != expected:
            self._break(part, line, _order(f"position {said['position']}", expected))
            return
        part.position = expected
        part.messages.append(raw)
        part.lines.append(line)
        self.checked.events += 1

    def _commit(self, line: int, said: dict[str, Any]) -> None:
        partition = int(said["subject"].removeprefix("partition/"))
        part, data = self._part(partition), said["data"]
        messages, lines = part.messages, part.lines
        part.messages, part.lines = [], []
        if part.broken:
            return
        if data["number"] != part.commits + 1:
            self._break(part, line, _order(f"commit {data['number']}", part.commits + 1))
            return
        if data["last"] != part.position or data["first"] != part.position - len(messages) + 1:
            reason = f"its events are not all here: {data['first']} to {data['last']}"
            self._break(part, line, reason)
            return
        checksums = b64decode(data["checksums"], validate=True)
        commands = [tuple(one) for one in data["commands"]]
        time = datetime.fromisoformat(said["time"])
        hash_ = link(
            part.hash,
            partition,
            data["number"],
            data["epoch"],
            data["first"],
            time,
            commands,
            checksums,
            messages,
        )
        if hash_.hex() != data["hash"]:
            self._changed(part, line, lines, checksums, messages)
            return
        part.commits, part.hash = data["number"], hash_
        self.checked.commits += 1

    def _changed(
        self,
        part: _Part,
        line: int,
        lines: list[int],
        checksums: bytes,
        messages: list[bytes],
    ) -> None:
        """Which line of a changed commit it was, as far as the checksums still tell."""
        now = checksums_of(messages)
        for place, where in enumerate(lines):
            if now[4 * place : 4 * place + 4] != checksums[4 * place : 4 * place + 4]:
                self._break(part, where, "the event was changed")
                return
        self._break(part, line, "the commit was changed, or one before it: its hash differs")

    def _read(self, line: int, said: dict[str, Any]) -> None:
        part, data = self._reads, said["data"]
        if part.broken:
            return
        if data["number"] != part.position + 1:
            self._break(part, line, _order(f"read {data['number']}", part.position + 1))
            return
        time = datetime.fromisoformat(said["time"])
        micros = (time - _EPOCH) // timedelta(microseconds=1)
        names = ("tenant", "actor", "origin", "action")
        row = [
            *(data["number"], micros, *(data[name] for name in names), said["subject"]),
            *(data["via"], data["payloads"], data["allowed"], data["detail"]),
        ]
        text = json.dumps(row, ensure_ascii=False, separators=(", ", ": "))
        hash_ = sha256(part.hash + text.encode()).digest()
        if hash_.hex() != data["hash"]:
            self._break(part, line, "the read was changed, or one before it: its hash differs")
            return
        part.position, part.hash = data["number"], hash_
        self.checked.reads += 1

    def finish(self) -> None:
        """Whether it all ended where it says."""
        if self._end is None:
            self._damage(self._last + 1, "the end is missing: lines were cut off")
            return
        try:
            ends, reads = self._end["partitions"], self._end["reads"]
            self.checked.digest = digest_of(ends, reads)
            for partition, end in ends.items():
                part = self._part(int(partition))
                found = (part.position, part.commits, part.hash.hex())
                if not part.broken and found != (end["position"], end["commits"], end["hash"]):
                    reason = f"partition {partition} ends at {end['position']}, here at "
                    self._damage(self._last, f"{reason}{part.position}: lines are missing")
            strange = sorted(set(map(str, self._parts)) - set(ends))
            if strange:
                self._damage(self._last, f"there are lines of partition {strange[0]}, no end")
            read = self._reads
            if not read.broken and (read.position, read.hash.hex()) != (
                *(reads["number"], reads["hash"]),
            ):
                reason = f"the reads end at {reads['number']}, here at {read.position}"
                self._damage(self._last, f"{reason}: lines are missing")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._damage(self._last, "the end is not as it was written")

    def _part(self, partition: int) -> _Part:
        return self._parts.setdefault(partition, _Part())

    def _break(self, part: _Part, line: int, reason: str) -> None:
        part.broken = True
        self._damage(line, reason)

    def _damage(self, line: int, reason: str) -> None:
        if len(self.checked.damages) < DAMAGES_MAX:
            self.checked.damages.append(Damage(line, reason))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _order(what: str, expected: int) -> str:
    return f"{what} stands where {expected} belongs: lines are missing, or were moved"
