"""Proves the invariants I1 … I20 from the tables, Redis and the clients' files, by plain means.

Shares no code with the engine: SQL, JSON and hashes; each invariant is one function with the name
that it has in the fault matrix. All of them are run, and everything that is wrong is said.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import asyncpg

Json = dict[str, Any]

SAID_MAX = 5  # examples of each thing that is wrong
REFUSED = "CommandRejected"
CLIENT = "chaos-client"
"""The actor of what the load gives."""


@dataclass
class Facts:
    """Everything that is checked, read once."""

    partitions: int
    events: dict[int, list[Json]]
    raw: dict[int, list[bytes]]
    commits: dict[int, list[Json]]
    cursors: list[Json]
    letters: list[Json]
    definitions: dict[tuple[str, int], Json]
    mirror: dict[int, list[tuple[str, bytes]]]
    sent: list[Json]
    acks: list[Json]
    epochs: list[tuple[int, int, int]] = field(default_factory=list)
    """(partition, epoch, commits) as somebody saw them while it ran: from then on, none lower."""

    @property
    def subjects(self) -> dict[str, list[Json]]:
        """The events of each aggregate, in order."""
        found: dict[str, list[Json]] = defaultdict(list)
        for events in self.events.values():
            for event in events:
                found[event["subject"]].append(event)
        return found

    @property
    def executions(self) -> dict[str, list[Json]]:
        """The events of each execution that has started, without refusals."""
        return {
            subject: happened
            for subject, events in self.subjects.items()
            if subject.startswith("execution/")
            and (happened := [event for event in events if event["type"] != REFUSED])
        }


async def read(
    database: asyncpg.Connection,
    redis: Any,
    files: Path | None = None,
    epochs: Iterable[tuple[int, int, int]] = (),
) -> Facts:
    """All facts of a quiet engine."""
    partitions = await database.fetchval("SELECT partitions FROM engine")
    events: dict[int, list[Json]] = {p: [] for p in range(partitions)}
    raw: dict[int, list[bytes]] = {p: [] for p in range(partitions)}
    for row in await database.fetch(
        "SELECT partition, position, type, subject, message::text AS message"
        " FROM events ORDER BY partition, position"
    ):
        raw[row["partition"]].append(row["message"].encode())
        columns = {f"_{name}": row[name] for name in ("partition", "position", "type", "subject")}
        events[row["partition"]].append(json.loads(row["message"]) | columns)
    commits: dict[int, list[Json]] = {p: [] for p in range(partitions)}
    for row in await database.fetch(
        "SELECT *, commands::text AS said FROM commits ORDER BY partition, number"
    ):
        commits[row["partition"]].append(dict(row) | {"commands": json.loads(row["said"])})
    definitions = {
        (row["workflow_id"], row["revision"]): json.loads(row["body"])
        for row in await database.fetch(
            "SELECT workflow_id, revision, body::text AS body FROM definitions"
        )
    }
    mirror = {
        p: [
            (entry.decode(), fields[b"message"])
            for entry, fields in await redis.xrange(f"events:{{{p}}}")
        ]
        for p in range(partitions)
    }
    return Facts(
        partitions,
        events,
        raw,
        commits,
        [dict(row) for row in await database.fetch("SELECT * FROM cursors")],
        [dict(row) for row in await database.fetch("SELECT * FROM dead_letters")],
        definitions,
        mirror,
        _lines(files / "sent.jsonl") if files else [],
        _lines(files / "acks.jsonl") if files else [],
        list(epochs),
    )


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def positions_gapless(facts: Facts) -> list[str]:
    """I1: positions are 1 … n, the head is n, and the columns say what the message says."""
    wrong = []
    heads = {c["partition"]: c["position"] for c in facts.cursors if c["consumer"] == "commands"}
    for partition, events in facts.events.items():
        positions = [event["_position"] for event in events]
        if positions != list(range(1, len(events) + 1)):
            wrong.append(f"partition {partition} has {len(events)} events, not 1 … n")
        if heads.get(partition, 0) != len(events):
            wrong.append(f"partition {partition}: head {heads.get(partition)}, {len(events)} there")
        for event in events:
            if any(
                event[f"_{n}"] != event[n] for n in ("partition", "position", "type", "subject")
            ):
                wrong.append(f"{partition}/{event['_position']}: columns and message disagree")
    return wrong


def versions_contiguous(facts: Facts) -> list[str]:
    """I2: the changes of an aggregate are counted 1, 2, 3 …; a refusal is no change."""
    wrong = []
    for subject, events in facts.subjects.items():
        versions = [event["version"] for event in events if event["type"] != REFUSED]
        if versions != list(range(1, len(versions) + 1)):
            wrong.append(f"{subject} has the versions {versions[:20]}")
    return wrong


def aggregate_in_one_partition(facts: Facts) -> list[str]:
    """I3: an aggregate lives where the CRC-32 of its id says, and nowhere else."""
    wrong = []
    for subject, events in facts.subjects.items():
        own = crc32(subject.partition("/")[2].encode()) % facts.partitions
        if {event["_partition"] for event in events} != {own}:
            wrong.append(f"{subject} is not only in {own}")
    return wrong


def command_handled_once(facts: Facts) -> list[str]:
    """I4: a command is in one commit, once, and its events are those that the commit counts."""
    wrong, seen = [], Counter[tuple[int, str]]()
    for partition, commits in facts.commits.items():
        for commit in commits:
            position = commit["first_position"]
            for name, count, *_ in commit["commands"]:
                seen[partition, name] += 1
                for event in facts.events[partition][position - 1 : position - 1 + count]:
                    if event.get("causationid") != name:
                        wrong.append(f"{partition}/{event['_position']} is not by {name}")
                position += count
            if position != commit["last_position"] + 1:
                wrong.append(f"commit {partition}/{commit['number']} counts other events")
    return wrong + [f"{name} was handled {n} times" for (_, name), n in seen.items() if n > 1]


def epoch_monotonic(facts: Facts) -> list[str]:
    """I5: epochs rise along a partition's commits; none is below what was seen before it."""
    wrong = []
    for partition, commits in facts.commits.items():
        epochs = [commit["epoch"] for commit in commits]
        if epochs != sorted(epochs):
            wrong.append(f"partition {partition} goes back to an older epoch")
    for partition, epoch, number in facts.epochs:
        for commit in facts.commits[partition][number:]:
            if commit["epoch"] < epoch:
                which = f"commit {partition}/{commit['number']}"
                wrong.append(f"{which} is of epoch {commit['epoch']}, after {epoch} was seen")
    return wrong


def hash_links(facts: Facts) -> list[str]:
    """I6: every commit's hash is that of the one before, its own columns and its events."""
    wrong = []
    for partition, commits in facts.commits.items():
        previous, head = b"", 0
        for number, commit in enumerate(commits, 1):
            first, last = commit["first_position"], commit["last_position"]
            if commit["number"] != number or first != head + 1:
                wrong.append(f"commit {partition}/{number} is missing or was moved")
                break
            messages = facts.raw[partition][first - 1 : last]
            stamp = commit["time"].astimezone(UTC).isoformat(timespec="microseconds")
            said = [partition, number, commit["epoch"], first, stamp, commit["commands"]]
            digest = sha256(previous)
            digest.update(json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode())
            digest.update(b"".join(crc32(message).to_bytes(4) for message in messages))
            for message in messages:
                digest.update(b"\n" + message)
            if digest.digest() != commit["hash"]:
                wrong.append(f"commit {partition}/{number} has another hash")
            previous, head = commit["hash"], last
    return wrong


def acked_command_has_outcome(facts: Facts) -> list[str]:
    """I10: what a client was told is in the log: the command, its events, or its refusal."""
    wrong, by_command = [], defaultdict(list)
    for events in facts.events.values():
        for event in events:
            by_command[event.get("causationid")].append(event)
    handled = {
        name for commits in facts.commits.values() for c in commits for name, *_ in c["commands"]
    }
    for ack in facts.acks:
        events = by_command[ack["id"]]
        if ack["id"] not in handled:
            wrong.append(f"{ack['id']} was acknowledged and is lost")
        elif "problem" in ack:
            said = [event["data"].get("code") for event in events if event["type"] == REFUSED]
            if ack["problem"] not in said:
                wrong.append(f"{ack['id']} was refused as {ack['problem']}, the log says {said}")
        else:
            positions = [event["_position"] for event in events if event["type"] != REFUSED]
            if positions != list(range(ack["first"], ack["last"] + 1)):
                wrong.append(f"{ack['id']} was told {ack['first']}-{ack['last']}, not {positions}")
    return wrong


def mirror_equals_log(facts: Facts) -> list[str]:
    """I11: the mirror is the end of the log, byte for byte, without a hole and up to the head."""
    wrong = []
    for partition, entries in facts.mirror.items():
        raw = facts.raw[partition]
        positions = [int(entry.partition("-")[0]) for entry, _ in entries]
        if positions and positions != list(range(positions[0], positions[0] + len(positions))):
            wrong.append(f"the mirror of {partition} has a hole")
        if (positions[-1] if positions else 0) != len(raw):
            wrong.append(f"the mirror of {partition} ends at {positions[-1:]}, not at {len(raw)}")
        for position, (_, message) in zip(positions, entries, strict=True):
            if position > len(raw) or raw[position - 1] != message:
                wrong.append(f"the mirror of {partition} differs at {position}")
    return wrong


def checkpoint_not_ahead(facts: Facts) -> list[str]:
    """I12: no reader and no snapshot is ahead of the log; in the end all have read it all."""
    wrong = []
    for cursor in facts.cursors:
        head = len(facts.events[cursor["partition"]])
        if cursor["position"] > head or cursor["snapshot"] > head:
            wrong.append(f"{cursor['consumer']}/{cursor['partition']} is ahead of {head}")
    return wrong


def accounting(facts: Facts) -> list[str]:
    """I20: what the log has handled from clients was sent, and what was acknowledged is handled.

    Commands of managers and agents come from the log itself; they are told by their ids.
    """
    if not facts.sent:
        return []
    sent = {said["id"] for said in facts.sent}
    acked = Counter(ack["id"] for ack in facts.acks)
    wrong = [f"{name} was acknowledged and never sent" for name in acked if name not in sent]
    for events in facts.events.values():
        for event in events:
            if event["actor"] == CLIENT and event["causationid"] not in sent:
                wrong.append(f"nobody has sent {event['causationid']}")
    return wrong


def say(name: str, wrong: list[str]) -> list[str]:
    """The first few, and how many there are."""
    shown = [f"{name}: {one}" for one in wrong[:SAID_MAX]]
    return [*shown, f"{name}: {len(wrong)} in all"] if len(wrong) > SAID_MAX else shown
