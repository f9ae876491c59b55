"""The log in PostgreSQL: one statement fences, moves the head and appends, or nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from streams.chain import seal
from streams.codec import redacted
from streams.log import (
    RAW_BYTES_MAX,
    CommitRow,
    CommitUnknown,
    Cursor,
    DeadLetter,
    DefinitionRow,
    LogUnavailable,
    ParkedKey,
    Share,
    SnapshotRow,
    Stored,
    Unacceptable,
)
from streams.logs import sql

CONNECTIONS_MAX = 8
COMMAND_TIMEOUT_S = 30.0
SETTINGS = {
    "application_name": "agentcore",
    "synchronous_commit": "on",  # an acknowledged event survives a crash of the server
    "statement_timeout": "30000",
    # A client that was stopped inside a transaction must not hold the fence's row for longer than
    # a lease lasts, or nobody could take over.
    "idle_in_transaction_session_timeout": "2000",
}
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended a session that was waiting for us
    asyncpg.PostgresError,
)
_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


ASSUME = """
SELECT set_config('role', rolname, false) FROM pg_roles
WHERE rolname = $1 AND pg_has_role(session_user, oid, 'MEMBER')
"""
"""Be a role from now on, where it is there and this login may be it."""

BIND = "SELECT set_config('agentcore.tenant', $1, false)"
"""See one tenant's rows only; see the migration of tenants' isolation."""


async def connect(
    database_url: str,
    connections_max: int = CONNECTIONS_MAX,
    role: str | None = None,
    tenant: Callable[[], str] | None = None,
) -> asyncpg.Pool:
    """A pool whose connections carry our time-outs and pass JSON as bytes.

    They act as `role` where the login may; whenever one is taken it is bound to `tenant`.
    """

    async def prepare(connection: Any) -> None:
        await connection.set_type_codec(
            "json", schema="pg_catalog", encoder=_same, decoder=_same, format="binary"
        )
        if role is not None:
            await connection.execute(ASSUME, role)

    async def bind(connection: Any) -> None:
        assert tenant is not None
        await connection.execute(BIND, tenant())

    async def keep(connection: Any) -> None:
        """We change no session state, so the round trip of a reset is saved."""

    return await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=connections_max,
        init=prepare,
        setup=None if tenant is None else bind,
        reset=keep,
        server_settings=SETTINGS,
        command_timeout=COMMAND_TIMEOUT_S,
    )


def _same(value: bytes) -> bytes:
    return value


class PostgresLog:
    """The log over a pool of connections; see `streams.log.Log` for what each call promises."""

    def __init__(
        self,
        database_url: str,
        connections_max: int = CONNECTIONS_MAX,
        role: str | None = None,
        tenant: Callable[[], str] | None = None,
    ) -> None:
        """`role` and `tenant` are those of `connect`."""
        self._role, self._tenant = role, tenant
        self._database_url = database_url
        self._connections_max = connections_max
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool | None = None
        self._writer: Any = None

    @property
    def pool(self) -> asyncpg.Pool:
        """The connections, once `open` has made them."""
        if self._pool is None:
            raise LogUnavailable("The log has not been opened.")
        return self._pool

    async def open(self) -> None:
        """Connect; a second call changes nothing. Raises LogUnavailable."""
        async with self._opening, self._answered():
            if self._pool is None:
                self._pool = await connect(
                    self._database_url, self._connections_max, self._role, self._tenant
                )

    async def close(self) -> None:
        """Let go of the connections."""
        pool, self._pool = self._pool, None
        writer, self._writer = self._writer, None
        if pool is not None:
            if writer is not None:
                await pool.release(writer)
            await pool.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows of a statement that stands elsewhere; raises LogUnavailable."""
        async with self._answered():
            return list(await self.pool.fetch(statement, *arguments))

    async def partitions(self) -> int:
        """How many partitions this log has."""
        async with self._answered():
            return int(await self.pool.fetchval(sql.PARTITIONS))

    async def cursors(self, consumer: str) -> list[Cursor]:
        """The consumer's cursors, one a partition; made at the first call."""
        async with self._answered():
            rows = await self.pool.fetch(sql.CURSORS, consumer)
            if not rows:
                await self.pool.execute(sql.MAKE_CURSORS, consumer)
                rows = await self.pool.fetch(sql.CURSORS, consumer)
        return [Cursor(*row) for row in rows]

    async def take(self, seen: Sequence[Cursor], owner: str) -> list[Cursor]:
        """Raise the epoch of the cursors that are still as `seen`."""
        async with self._answered():
            rows = await self.pool.fetch(
                sql.TAKE,
                owner,
                [c.consumer for c in seen],
                [c.partition for c in seen],
                [c.epoch for c in seen],
                [c.beat for c in seen],
            )
        return [Cursor(*row) for row in rows]

    async def beat(self, consumer: str, held: Mapping[int, int]) -> set[int]:
        """Show that we live; returns the partitions that are still ours."""
        async with self._answered():
            rows = await self.pool.fetch(sql.BEAT, consumer, list(held), list(held.values()))
        return {row[0] for row in rows}

    async def release(self, consumer: str, held: Mapping[int, int]) -> None:
        """Hand partitions back."""
        async with self._answered():
            await self.pool.execute(sql.RELEASE, consumer, list(held), list(held.values()))

    async def free(self, consumer: str) -> bool:
        """Whether some partition has no owner."""
        async with self._answered():
            return bool(await self.pool.fetchval(sql.FREE, consumer))

    async def meet(self, consumer: str, member: str) -> dict[str, int]:
        """Raise the beat of a member; returns the beats of all."""
        async with self._answered():
            rows = await self.pool.fetch(sql.MEET, consumer, member)
        return {row[0]: row[1] for row in rows}

    async def dismiss(self, consumer: str, seen: Mapping[str, int]) -> None:
        """Remove the members whose beats are still as `seen`."""
        async with self._answered():
            await self.pool.execute(sql.DISMISS, consumer, list(seen), list(seen.values()))

    async def leave(self, consumer: str, member: str, held: Mapping[int, int]) -> None:
        """Remove a member and hand its partitions back, in one statement."""
        async with self._answered():
            partitions, epochs = list(held), list(held.values())
            await self.pool.execute(sql.LEAVE, consumer, partitions, epochs, member)

    async def append(self, shares: Sequence[Share], time: datetime) -> set[int]:
        """Commit all shares whose fence holds, in one statement.

        Never COPY in a transaction: whoever is stopped in the middle of it holds the cursors' rows,
        and PostgreSQL's time-outs do not end a COPY that waits for its client. Up to 1,000 events
        it is not faster either (8 ms), at 4,000 by a quarter.
        """
        for share in shares:
            seal(share, time)
        commit = [*_fence(shares, time), *_columns(shares)]
        statement = sql.APPEND
        if any(share.definitions or share.archived for share in shares):
            statement, commit = sql.APPEND_BESIDE, [*commit, *_beside(shares)]
        try:
            return {row[0] for row in await self._write(statement, commit)}
        except asyncpg.UniqueViolationError as error:  # the fence held, yet somebody wrote: look
            raise CommitUnknown(str(error)[:300]) from error
        except _REFUSED as error:
            raise Unacceptable(str(error)[:300]) from error
        except UNREACHABLE as error:
            if isinstance(error, ValueError):  # the client could not even encode it
                raise Unacceptable(str(error)[:300]) from error
            raise CommitUnknown(f"{type(error).__name__}: {error}"[:300]) from error

    async def _write(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """Run a statement on a connection that stays ours between commits.

        To take one from the pool and give it back is a tenth of a small commit's cost here. Who
        finds it in use takes another one; after any error it goes back, to be looked at there.
        """
        pool = self.pool
        if self._tenant is not None or self._connections_max == 1:
            return list(await pool.fetch(statement, *arguments))
        writer, self._writer = self._writer, None
        if writer is not None and writer.is_closed():
            await pool.release(writer)
            writer = None
        if writer is None:
            writer = await pool.acquire()
        kept = False
        try:
            rows = await writer.fetch(statement, *arguments)
            if kept := self._writer is None and self._pool is pool:
                self._writer = writer
            return list(rows)
        finally:
            if not kept:
                await pool.release(writer)

    async def advance(self, consumer: str, moves: Sequence[tuple[int, int, int]]) -> set[int]:
        """Move cursors; returns the partitions still ours."""
        async with self._answered():
            rows = await self.pool.fetch(
                sql.ADVANCE, consumer, *map(list, zip(*moves, strict=True))
            )
        return {row[0] for row in rows}

    async def read(self, partition: int, after: int, limit: int) -> list[Stored]:
        """The events after a position, in order."""
        async with self._answered():
            rows = await self.pool.fetch(sql.READ, partition, after, limit)
        return list(map(Stored._make, rows))

    async def history(self, partition: int, subject: str, after: int, limit: int) -> list[Stored]:
        """The events of one subject after a position, in order."""
        async with self._answered():
            rows = await self.pool.fetch(sql.HISTORY, partition, subject, after, limit)
        return list(map(Stored._make, rows))

    async def commits(self, partition: int, after: int, limit: int) -> list[CommitRow]:
        """The commits after a number, in order."""
        async with self._answered():
            return [_commit(r) for r in await self.pool.fetch(sql.COMMITS, partition, after, limit)]

    async def recent(self, partition: int, commands: int) -> list[CommitRow]:
        """The newest commits that cover at least so many commands, oldest first."""
        async with self._answered():
            return [_commit(r) for r in await self.pool.fetch(sql.RECENT, partition, commands)]

    async def definitions(
        self, wanted: Sequence[tuple[str, int]], bodies: bool = True
    ) -> list[DefinitionRow]:
        """The named revisions that exist; 0 is the newest."""
        async with self._answered():
            rows = await self.pool.fetch(
                sql.DEFINITIONS, [w for w, _ in wanted], [r for _, r in wanted], bodies
            )
        return [DefinitionRow(*row) for row in rows]

    async def save(self, cursor: Cursor, position: int, states: Sequence[SnapshotRow]) -> bool:
        """Keep states as of `position`, if the lease still holds."""
        async with self._answered():
            held = await self.pool.fetchval(sql.SAVE, *_saved(cursor, position, states))
        return bool(held)

    async def park(self, key: ParkedKey, letter: DeadLetter) -> None:
        """Keep that a reader passes over a subject from a position on."""
        async with self._answered():
            await self.pool.execute(sql.PARK, *letter_columns([letter]), *key[:4])

    async def parked(self, consumers: Sequence[str], partition: int) -> list[ParkedKey]:
        """What these readers have parked in a partition."""
        async with self._answered():
            rows = await self.pool.fetch(sql.PARKED, list(consumers), partition)
        return [ParkedKey(*row) for row in rows]

    async def unpark(
        self, cursor: Cursor, position: int, states: Sequence[SnapshotRow], key: ParkedKey
    ) -> bool:
        """Save states, and in the same instant forget that a key was parked."""
        arguments = (*_saved(cursor, position, states), key.consumer, key.subject)
        async with self._answered():
            return bool(await self.pool.fetchval(sql.UNPARK, *arguments))

    async def load(self, consumer: str, subjects: Sequence[str]) -> dict[str, SnapshotRow]:
        """The saved states of these subjects."""
        async with self._answered():
            rows = await self.pool.fetch(sql.LOAD, consumer, list(subjects))
        return {row[0]: SnapshotRow(*row) for row in rows}

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep what could not be handled."""
        if letters:
            async with self._answered():
                await self.pool.execute(sql.BURY, *letter_columns(letters))

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Turns every way of not being answered into LogUnavailable."""
        try:
            yield
        except UNREACHABLE as error:
            raise LogUnavailable(f"{type(error).__name__}: {error}"[:300]) from error


def _fence(shares: Sequence[Share], time: datetime) -> list[Any]:
    return [
        [s.partition for s in shares],
        [s.epoch for s in shares],
        [s.head for s in shares],
        [s.last for s in shares],
        [s.number for s in shares],
        [s.hash for s in shares],
        [s.stream_offset for s in shares],
        [s.incarnation for s in shares],
        [orjson.dumps(s.commands).decode() for s in shares],
        time,
        [s.checksums for s in shares],
    ]


def _columns(shares: Sequence[Share]) -> list[Any]:
    """The columns of the events; numbers in one text, since asyncpg looks at each of an array."""
    partitions: list[str] = []
    positions: list[str] = []
    types: list[str] = []
    subjects: list[str] = []
    messages: list[str] = []
    for share in shares:
        partitions += [str(share.partition)] * len(share.messages)
        positions += map(str, range(share.head + 1, share.last + 1))
        types += share.types
        subjects += share.subjects
        messages += [message.decode() for message in share.messages]
    return [f"{{{','.join(partitions)}}}", f"{{{','.join(positions)}}}", types, subjects, messages]


def _beside(shares: Sequence[Share]) -> list[list[Any]]:
    """The columns of the definitions, and of the workflows to archive."""
    rows = [
        (
            share.partition,
            row.workflow_id,
            row.revision,
            row.tenant,
            row.digest,
            row.workflow_id in share.archived,
            row.body.decode(),
        )
        for share in shares
        for row in share.definitions
    ]
    archived = [(share.partition, name) for share in shares for name in share.archived]
    return [*_transposed(rows, 7), *_transposed(archived, 2)]


def _transposed(rows: Sequence[tuple[Any, ...]], columns: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(columns)]


def _saved(cursor: Cursor, position: int, states: Sequence[SnapshotRow]) -> list[Any]:
    return [
        cursor.consumer,
        cursor.partition,
        cursor.epoch,
        position,
        [row.subject for row in states],
        [row.version for row in states],
        [row.state.decode() for row in states],
    ]


def letter_columns(letters: Sequence[DeadLetter]) -> list[list[Any]]:
    """The arguments of `sql.BURY`."""
    rows = [(x.id, *x[:4], *_kept(x), x.tenant, x.subject) for x in letters]
    return _transposed(rows, 9)


def _kept(letter: DeadLetter) -> tuple[bytes, int]:
    """What is kept of its bytes, and how many there were; what is sealed was cut before."""
    if letter.size is not None:
        return letter.raw, letter.size
    raw = redacted(letter.raw)
    return raw[:RAW_BYTES_MAX], len(raw)


def _commit(row: Any) -> CommitRow:
    commands = [tuple(handled) for handled in orjson.loads(row[6])]
    return CommitRow._make([*row[:6], commands, *row[7:]])
