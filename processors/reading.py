"""Payloads for readers: opened with their tenant's key, and every look at one is in the trail.

What is read is noted before it is shown: where that cannot be noted, nothing is shown. A row says
who read how many payloads of which aggregate, from where and by which way.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from getpass import getuser
from typing import Any, NamedTuple

import orjson

from aggregates.problem import bounded
from aggregates.sealed import Sealed
from processors.payloads import EVENTS, any_sealed, reveal, reveal_event
from processors.sealing import open_raw
from streams.logs.postgres import PostgresLog
from streams.message import Event
from streams.sealing.keyring import Keyring
from streams.sealing.sealer import Sealer, Unopenable

ERROR, PROMPT = Sealed("error", "text"), Sealed("prompt")

READ, EXPORTED = "PayloadsRead", "KeyExported"
NAME_CHARS_MAX = 200

RECORD = """
INSERT INTO audit_reads (tenant, actor, origin, action, subject, via, payloads, allowed, detail)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::int[], $8::bool[], $9::text[])
"""
"""Rows of the trail, in this order; the table numbers and chains them."""

TENANT = "SELECT tenant FROM executions WHERE execution_id = $1"
"""Whose an execution is."""

ROWS_MAX = 500  # of one statement


class Read(NamedTuple):
    """One row of the trail: who read what; or was refused it."""

    tenant: str
    actor: str
    origin: str
    action: str
    subject: str
    via: str
    payloads: int
    allowed: bool = True
    detail: str = ""


class Payload(NamedTuple):
    """One payload, and where it belongs."""

    tenant: str
    subject: str
    mark: Sealed
    value: Any


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who reads, from somewhere, by some way; without keys all stays sealed."""

    log: PostgresLog
    keys: Keyring | None
    actor: str
    origin: str
    via: str

    async def events(self, events: Sequence[Event]) -> list[Event]:
        """The events with their payloads in clear, as far as they can be; raises LogUnavailable."""
        looked: Counter[tuple[str, str]] = Counter()
        for event in events:
            if marks := EVENTS.get((event.aggregate, event.type)):
                count = sum(any_sealed(mark, event.data.get(name)) for name, mark in marks.items())
                if count:
                    looked[event.tenant, event.subject] += count
        if not looked or self.keys is None:
            return list(events)
        sealers = await self._sealers(looked)
        return [
            replace(event, data=reveal_event(sealers[event.tenant], event))
            if (event.tenant, event.subject) in looked
            else event
            for event in events
        ]

    async def payloads(self, payloads: Sequence[Payload]) -> list[Any]:
        """The same for single ones, such as the columns of a read model."""
        looked = Counter(
            (one.tenant, one.subject) for one in payloads if any_sealed(one.mark, one.value)
        )
        if not looked or self.keys is None:
            return [one.value for one in payloads]
        sealers = await self._sealers(looked)
        return [
            reveal(sealers[one.tenant], one.mark, one.value, one.subject)
            if one.tenant in sealers
            else one.value
            for one in payloads
        ]

    async def of_execution(self, name: str, said: Sequence[tuple[Sealed, Any]]) -> list[Any]:
        """The same for what is known of one execution, whose tenant is looked up."""
        if not any(any_sealed(mark, value) for mark, value in said):
            return [value for _, value in said]
        found = await self.log.fetch(TENANT, name)
        tenant = found[0][0] if found else ""
        where = f"execution/{name}"
        return await self.payloads([Payload(tenant, where, *one) for one in said])

    async def letter(self, name: str, raw: bytes) -> bytes:
        """A dead letter's bytes in clear; as they are where they cannot be opened."""
        try:
            clear = await open_raw(self.keys, name, raw)
        except Unopenable:
            return raw
        if clear is not raw:
            tenant = orjson.loads(raw)["tenant"]
            await self._record([self._row(tenant, f"dead_letter/{name}", 1)])
        return clear

    async def refused(self, tenant: str, subject: str, why: str) -> None:
        """Note that payloads were asked for without the right to them."""
        await self._record([self._row(tenant, subject, 0)._replace(allowed=False, detail=why)])

    async def exported(self, tenant: str) -> None:
        """Note that a tenant's keys were given out."""
        await self._record([self._row(tenant, f"tenant/{tenant}", 0)._replace(action=EXPORTED)])

    async def _sealers(self, looked: Counter[tuple[str, str]]) -> dict[str, Sealer | Unopenable]:
        tenants = {tenant for tenant, _ in looked}
        assert self.keys is not None
        await self.keys.hold(tenants, create=False)
        found: dict[str, Sealer | Unopenable] = {
            tenant: self.keys.held(tenant) or self.keys.why_not(tenant) for tenant in tenants
        }
        await self._record(
            [
                self._row(tenant, subject, count)
                for (tenant, subject), count in looked.items()
                if isinstance(found[tenant], Sealer)
            ]
        )
        return found

    def _row(self, tenant: str, subject: str, count: int) -> Read:
        return Read(tenant, self.actor, self.origin, READ, subject, self.via, count)

    async def _record(self, rows: Sequence[Read]) -> None:
        for at in range(0, len(rows), ROWS_MAX):
            await self.log.fetch(RECORD, *_columns(rows[at : at + ROWS_MAX]))


def _columns(rows: Sequence[Read]) -> Iterable[list[Any]]:
    """Rows as arrays, their texts bounded: who asks may be anybody."""
    for column in zip(*rows, strict=True):
        yield [
            bounded(value.replace("\0", ""), NAME_CHARS_MAX) if isinstance(value, str) else value
            for value in column
        ]


def this_user() -> str:
    """Who runs this process."""
    try:
        return getuser()
    except (KeyError, OSError):  # an account without a name, in a container
        return f"uid-{os.getuid()}"


def this_host() -> str:
    """Where this process runs."""
    return f"{this_user()}@{socket.gethostname()}"
