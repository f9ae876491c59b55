"""Reads the task streams of all roles of a host through one connection, no faster than it works.

One XREADGROUP waits on every role that has room. A role without room is left out; when it has room
again while the reader waits on the others, the reader is rung: a message to a stream of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import uniform
from typing import Any, Protocol

import structlog
from redis.exceptions import RedisError, ResponseError

from processors.agents.agent import Role
from processors.agents.outbox import GROUP, Outbox
from streams.bus import BLOCK_MS_MAX, Bus
from streams.partition import FIELD

logger = structlog.get_logger(__name__)

READ_ENTRIES_MAX = 1_000
TURN_ENTRIES = 64  # then the other coroutines get a turn: answers leave while tasks are begun
RETRY_S, RETRY_S_MAX = 0.02, 1.0

NEW = b">"
OWN = b"0"
"""Where a consumer reads what was delivered to it before and not settled."""

_GONE = ("NOGROUP", "UNBLOCKED")  # the stream was deleted, perhaps with all of Redis


class Take(Protocol):
    """Where entries go: how often each was handed out, since when it is ours, whether again."""

    def __call__(
        self, role: Role, entry: bytes, raw: bytes | None, times: int, since: float, again: bool
    ) -> None: ...


@dataclass(slots=True)
class Plan:
    """What the next read asks for."""

    roles: Sequence[Role]
    count: int
    block: bool
    partial: bool  # a role was left out for want of room: ring when it has some


class Reader:
    """One consumer of the group, for all roles of a host."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        roles: Sequence[Role],
        outbox: Outbox,
        take: Take,
        bell: str | None = None,
    ) -> None:
        self._bus = bus
        self._line = bus.another_line()
        self._name = name
        self._bell = (bell or f"agents:{name}").encode()
        self._roles = {role.stream: role for role in roles}
        self._outbox = outbox
        self._take = take
        self._after = dict.fromkeys((*self._roles, self._bell), OWN)
        self._hungry: list[Role] = []
        self._room = asyncio.Event()
        self._partial = False
        self._stopping = False
        self.errors = 0

    def stop(self) -> None:
        """Read no more; a read that is under way ends at once."""
        self._stopping = True
        self._room.set()
        self._outbox.send(self._bell, b"")

    def wake(self) -> None:
        """Look again whether there is room."""
        self._room.set()

    def ring(self) -> None:
        """A role that had no room has some: the read that left it out ends."""
        self._room.set()
        if self._partial:
            self._partial = False
            self._outbox.send(self._bell, b"")

    async def run(self) -> None:
        """Read until stopped, whatever Redis does meanwhile."""
        try:
            await self._read_on()
        finally:
            self._line.close()

    async def _read_on(self) -> None:
        wait_s = RETRY_S
        while not self._stopping:
            plan = self._plan()
            if plan is None:
                self._room.clear()
                await self._room.wait()
                continue
            self._partial = plan.partial
            since = asyncio.get_running_loop().time()  # before: the reply may be long under way
            try:
                reply = await self._read(plan)
                times = await self._times(reply)
            except (RedisError, OSError) as error:
                self._partial = False
                await self._lost(error, first=wait_s == RETRY_S)
                await asyncio.sleep(wait_s * uniform(0.5, 1.0))  # noqa: S311
                wait_s = min(wait_s * 2, RETRY_S_MAX)
            else:
                self._partial = False
                wait_s = RETRY_S
                await self._deliver(plan, reply, times, since)
                await asyncio.sleep(0)  # answers that are ready leave before the next read

    def _plan(self) -> Plan | None:
        """Of the roles with room, as much as all of them can take; None while there is none.

        The count holds for each stream, so roles of which more waits than they got are read
        alone in every second read.
        """
        if self._outbox.full:
            return None
        hungry, self._hungry = self._hungry, []
        roles = [role for role in hungry or self._roles.values() if role.free]
        if not roles:
            return None
        pools = {pool for role in roles for pool in role.pools}
        free = sum([pool.free for pool in pools]) or roles[0].free
        free = min(READ_ENTRIES_MAX, free)
        count = max(1, min(min([role.free for role in roles]), free // len(roles)))
        return Plan(roles, count, not hungry, not hungry and len(roles) < len(self._roles))

    async def _read(self, plan: Plan) -> list[tuple[bytes, list[Any]]]:
        """The entries by stream; a stream that is read from `OWN` never blocks."""
        streams = [role.stream for role in plan.roles]
        block: tuple[Any, ...] = ()
        if plan.block:
            streams.append(self._bell)
            block = ("BLOCK", BLOCK_MS_MAX)
        try:
            reply: Any = await self._line.one(
                b"XREADGROUP",
                *("GROUP", GROUP, self._name, "COUNT", plan.count, *block, "STREAMS"),
                *streams,
                *[self._after[stream] for stream in streams],
            )
        except BaseException as error:
            if not isinstance(error, ResponseError):  # it may still be blocked
                self._line.close()
            raise
        return list(reply or ())

    async def _times(self, reply: list[tuple[bytes, list[Any]]]) -> dict[tuple[bytes, bytes], int]:
        """How often each entry was handed out; what is new was once, and is left out."""
        own = [(s, entries) for s, entries in reply if entries and self._after[s] != NEW]
        if not own:
            return {}
        async with self._bus.redis.pipeline(transaction=False) as pipe:
            for stream, entries in own:
                between = (entries[0][0], entries[-1][0], len(entries))
                pipe.execute_command(b"XPENDING", stream, GROUP, *between, self._name)
            found = await pipe.execute()
        rows = zip(own, found, strict=True)
        return {(stream, row[0]): row[3] for (stream, _), pending in rows for row in pending}

    async def _deliver(
        self,
        plan: Plan,
        reply: list[tuple[bytes, list[Any]]],
        times: dict[tuple[bytes, bytes], int],
        since: float,
    ) -> None:
        """Hand every entry on, and note where to read next."""
        turn = 0
        for stream, entries in reply:
            again = self._after[stream] != NEW
            if again:
                self._after[stream] = entries[-1][0] if entries else NEW
            role = self._roles.get(stream)
            for entry, fields in entries:
                if role is None:
                    self._outbox.settle(stream, entry)
                    continue
                count = times.get((stream, entry), 1) if again else 1
                self._take(role, entry, message_of(fields), count, since, again)
                turn += 1
                if turn % TURN_ENTRIES == 0:
                    await asyncio.sleep(0)
            if role is not None and len(entries) >= plan.count and role.free:
                self._hungry.append(role)

    async def _lost(self, error: Exception, *, first: bool) -> None:
        """After any error: what the reply would have brought is ours, so read our own first."""
        self.errors += 1
        self._after = dict.fromkeys(self._after, OWN)
        self._hungry = []
        if not str(error).startswith(_GONE):
            if first:
                logger.warning("tasks_unreadable", host=self._name, error=str(error)[:200])
            return
        try:
            await self._create_groups()
        except (RedisError, OSError) as again:
            logger.warning("groups_not_created", host=self._name, error=str(again)[:200])

    async def _create_groups(self) -> None:
        """Each at 0: tasks that came before the group are tasks as well."""
        async with self._bus.redis.pipeline(transaction=False) as pipe:
            for stream in self._after:
                pipe.xgroup_create(stream, GROUP, id="0", mkstream=True)
            for result in await pipe.execute(raise_on_error=False):
                if isinstance(result, Exception) and "BUSYGROUP" not in str(result):
                    raise result


def message_of(fields: Sequence[bytes] | None) -> bytes | None:
    """The value of the field `message`; b"" where there is no such field, None where it is gone."""
    if not fields:
        return None
    if fields[0] == FIELD:
        return fields[1]
    return dict(zip(fields[::2], fields[1::2], strict=False)).get(FIELD, b"")
