"""Dead letters for people and programs: find them, look at one, decide on one or on many.

A decision is a command to the aggregate `dead_letter`, and so an event with who and why. What
follows from it happens a moment later: see `letter_carrier`. Deciding on many is a walk over what a
filter finds, at a named rate; whoever is interrupted begins again with the same filter, since what
was decided is not found any more.
"""

from __future__ import annotations

from asyncio import get_running_loop, sleep
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import asyncpg

from aggregates.dead_letter import RETRIES_MAX
from aggregates.problem import Refused
from processors.client import Client, Rejected
from processors.commands import command
from streams.log import RAW_BYTES_MAX

DECISIONS_PER_S = 50.0  # of a walk over many: other commands are decided between them
PAGE = 100

KINDS = ("command", "event", "task", "hook")
Status = Literal["open", "retried", "discarded"]
Decision = Literal["retry", "discard"]

FIND = """
SELECT dead_letter_id, kind, tenant, subject, source, entry, reason, raw_bytes, time, status, tries,
       decided_by, decided_why, decided_at, due,
       CASE WHEN $1::text IS NULL THEN ''::bytea ELSE raw END
FROM dead_letters
WHERE ($1::text IS NULL OR starts_with(dead_letter_id, $1))
  AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR kind = $3)
  AND ($4::text IS NULL OR tenant = $4)
  AND ($5::text IS NULL OR strpos(lower(reason), lower($5)) > 0)
  AND ($6::text IS NULL OR subject = $6)
  AND ($7::timestamptz IS NULL OR time >= $7) AND ($8::timestamptz IS NULL OR time < $8)
  AND ($9::timestamptz IS NULL OR (time, dead_letter_id) > ($9, $10::text))
ORDER BY time, dead_letter_id LIMIT $11
"""
"""Letters that a filter finds, oldest first, after a place in that order."""

COUNT = """
SELECT kind, status, count(*) FROM dead_letters GROUP BY kind, status ORDER BY kind, status
"""
"""How many there are."""


class Unknown(Exception):
    """There is no such dead letter."""


class Letter(NamedTuple):
    """One row; `raw` is only there where one letter was asked for."""

    id: str
    kind: str
    tenant: str | None
    subject: str | None
    source: str
    entry: str
    reason: str
    raw_bytes: int
    time: datetime
    status: Status
    tries: int
    decided_by: str | None
    decided_why: str | None
    decided_at: datetime | None
    due: bool
    raw: bytes

    @property
    def whole(self) -> bool:
        """Whether all of its bytes were kept; known where one letter was asked for."""
        return len(self.raw) == self.raw_bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; `reason` is a part of it in any case, times are the letter's."""

    status: Status | None = "open"
    kind: str | None = None
    tenant: str | None = None
    reason: str | None = None
    subject: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def _arguments(self) -> tuple[Any, ...]:
        return (
            *(self.status, self.kind, self.tenant, self.reason),
            *(self.subject, self.since, self.before),
        )


class Decided(NamedTuple):
    """What became of a decision about one letter; `problem` says why it was refused."""

    letter: Letter
    problem: dict[str, Any] | None = None


async def find(
    pool: asyncpg.Pool, wanted: Filter, after: Letter | None = None, limit: int = PAGE
) -> list[Letter]:
    """The letters that a filter finds, oldest first, from after one of them on."""
    place = (after.time, after.id) if after else (None, None)
    rows = await pool.fetch(FIND, None, *wanted._arguments(), *place, limit)
    return [Letter(*row) for row in rows]


async def show(pool: asyncpg.Pool, name: str) -> Letter:
    """One letter with its bytes, by its id or the begin of it; raises Unknown."""
    found = await pool.fetch(FIND, name, *Filter(status=None)._arguments(), None, None, 2)
    exact = [row for row in found if row[0] == name]
    if len(exact or found) != 1:
        several = "Several dead letters begin" if found else "No dead letter begins"
        raise Unknown(f"{several} with {name!r}; `orchestrator dead-letters list` has them.")
    return Letter(*(exact or found)[0])


async def counts(pool: asyncpg.Pool) -> list[tuple[str, str, int]]:
    """How many letters there are, by kind and status."""
    return [tuple(row) for row in await pool.fetch(COUNT)]


async def decide(client: Client, letter: Letter, decision: Decision, why: str, by: str) -> None:
    """Decide on one letter; raises Rejected, or NoAnswer."""
    data: dict[str, Any] = {"reason": why}
    if decision == "retry":
        # Who saw it as it is now: what somebody else has done meanwhile is not done twice.
        data["attempt"] = min(letter.tries + 1, RETRIES_MAX)
        if letter.raw_bytes > RAW_BYTES_MAX:
            detail = "Not all of its bytes were kept, so it can only be discarded."
            raise Rejected(Refused("TRUNCATED", detail).problem())
    kind = "RetryDeadLetter" if decision == "retry" else "DiscardDeadLetter"
    said = command("dead_letter", letter.id, kind, data)
    said.actor = by
    if letter.tenant:
        said.tenant = letter.tenant
    await client.call(said)


async def decide_many(
    client: Client,
    wanted: Filter,
    decision: Decision,
    why: str,
    by: str,
    rate: float = DECISIONS_PER_S,
) -> AsyncIterator[Decided]:
    """Decide on all that a filter finds, oldest first, at most `rate` a second."""
    loop = get_running_loop()
    following, last = loop.time(), None
    while page := await find(client.pool, wanted, last):
        for letter in page:
            await sleep(following - loop.time())
            following = max(following, loop.time()) + 1 / rate
            try:
                await decide(client, letter, decision, why, by)
                yield Decided(letter)
            except Rejected as refused:
                yield Decided(letter, refused.problem)
            last = letter
