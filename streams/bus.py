"""Redis Streams as the engine uses them: batches, explicit time-outs, no hidden retries.

Redis is transport and never the record: everything here may be lost, and says so by an exception.
redis-py's own retries are off, since one XADD whose reply was lost became two entries with them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any, cast

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from streams.bus_scripts import APPEND, DIGESTS, MIRROR, REPLY
from streams.line import Line
from streams.partition import FIELD, events_key
from streams.quick import REPLY_PREFIX

BLOCK_MS_MAX = 2_000
SOCKET_TIMEOUT_S = 10.0  # longer than any BLOCK: a shorter one turns idle streams into errors
CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64
MEMORY_SHARE_MAX = 0.7  # of maxmemory: above it intake stops, so that mirror and answers need not
MEMORY_LOOK_S = 0.5
REPLIES_KEPT_S = 600  # after the last one: whoever comes later asks again, by the same id
_KEPT = b"%d" % REPLIES_KEPT_S
MIRROR_ENTRIES = 10_000  # the hot tail of each partition; older events are read from the table

Entries = list[tuple[bytes, dict[bytes, bytes]]]

SCRIPT_ARGUMENTS_MAX = 4_000  # Lua's stack holds about 8,000; half of it leaves room


class BusUnavailable(Exception):
    """Redis did not answer in time, or refused: what was sent may have arrived or not."""


class BusFull(BusUnavailable):
    """Redis is nearly full, so no new commands are taken in; nothing was sent. Try again later."""


class MemoryPolicyRefused(Exception):
    """Redis may evict streams: set `maxmemory-policy noeviction`, then start again."""


class Bus:
    """One process's connections to Redis."""

    def __init__(self, url: str) -> None:
        self.redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            max_connections=CONNECTIONS_MAX,
            health_check_interval=0,
        )
        self._full = (-MEMORY_LOOK_S, False)  # when that was looked for last, and what was found
        pool = self.redis.connection_pool
        pool.connection_class = _packing(pool.connection_class)
        self.line = self.another_line()
        """For what is answered at once: who blocks, blocks those behind."""
        self._reading: list[Line] = []

    async def open(self) -> None:
        """Check that this Redis keeps what it is given; raises MemoryPolicyRefused."""
        policy = await self.redis.config_get("maxmemory-policy")
        if policy.get("maxmemory-policy", "noeviction") != "noeviction":
            raise MemoryPolicyRefused(MemoryPolicyRefused.__doc__)

    async def close(self) -> None:
        """Let go of the connections."""
        for line in (self.line, *self._reading):
            line.close()
        await self.redis.aclose()

    def another_line(self) -> Line:
        """A connection for calls that block; whoever asked for it closes it."""
        return Line(self.redis.connection_pool, SOCKET_TIMEOUT_S)

    async def make_sure_of_room(self) -> None:
        """Before something new is taken in: raises BusFull where what is under way needs the rest.

        Asked of Redis now and then; one without a maxmemory always has room.
        """
        looked, full = self._full
        if monotonic() - looked >= MEMORY_LOOK_S:
            try:
                memory: Any = await self.redis.info("memory")
            except RedisError as error:
                raise BusUnavailable(str(error)[:200]) from error
            full = memory["used_memory"] > MEMORY_SHARE_MAX * (memory["maxmemory"] or inf)
            self._full = monotonic(), full
        if full:
            raise BusFull(BusFull.__doc__)

    async def mirror(self, shares: Sequence[tuple[int, int, Sequence[bytes]]]) -> list[list[int]]:
        """Copy committed events to their streams: (partition, first position, messages) each.

        Returns per share [appended, already there, 1 where the stream was begun afresh].
        """
        calls: list[tuple[str, list[Any]]] = []
        for partition, first, messages in shares:
            for at in range(0, len(messages), SCRIPT_ARGUMENTS_MAX):
                part = messages[at : at + SCRIPT_ARGUMENTS_MAX]
                calls.append((events_key(partition), [first + at, MIRROR_ENTRIES, *part]))
        return cast(list[list[int]], await self._run(MIRROR, calls))

    async def append(self, messages: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """Add messages to streams, in order within each; returns the ids that they got.

        Streams of outcomes, which anybody may name, are gone REPLIES_KEPT_S after the last one.
        """
        calls: list[tuple[str, list[Any]]] = []
        replies: list[tuple[str, list[Any]]] = []
        for key, batch in messages.items():
            for at in range(0, len(batch), SCRIPT_ARGUMENTS_MAX):
                some = list(batch[at : at + SCRIPT_ARGUMENTS_MAX])
                if key.startswith(REPLY_PREFIX):
                    replies.append((key, [_KEPT, *some]))
                else:
                    calls.append((key, some))
        ids: dict[str, list[bytes]] = {key: [] for key in messages}
        for script, some_calls in ((APPEND, calls), (REPLY, replies)):
            for (key, _), got in zip(some_calls, await self._run(script, some_calls), strict=True):
                ids[key] += got
        return ids

    async def publish(self, messages: Mapping[str, Sequence[bytes]]) -> None:
        """Tell whoever listens to these channels at this moment; nobody may."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for channel, batch in messages.items():
                    for message in batch:
                        pipe.publish(channel, message)
                await pipe.execute()
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def _run(self, script: str, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """All calls of a script in one round trip; a server that forgot the script is taught."""
        if not calls:
            return []
        digest = DIGESTS[script]
        commands = [(b"EVALSHA", digest, 1, key, *arguments) for key, arguments in calls]
        try:
            try:
                return _well(await self.line.call(*commands))
            except NoScriptError:  # all calls are of one script, so none of them has run
                await self.line.one(b"SCRIPT", b"LOAD", script)
                return _well(await self.line.call(*commands))
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def read(
        self, after: Mapping[str, str], count: int, block_ms: int = BLOCK_MS_MAX
    ) -> dict[str, list[tuple[str, bytes]]]:
        """Entries after the given ids, waiting up to `block_ms` for the first; {} when none came.

        An entry without the field `message` comes as b"" and is the receiver's to refuse.
        """
        assert block_ms <= BLOCK_MS_MAX
        streams = (b"STREAMS", *after, *after.values())
        read = (b"XREAD", b"COUNT", count, *streams)
        try:
            if not block_ms:
                answer = await self.line.one(*read)
            elif len(after) == 1:
                [answer] = await self._wait((*read[:3], b"BLOCK", block_ms, *streams))
            else:
                # Redis wakes a reader with what one stream got; the others', which came in the same
                # instant, are there when it asks again, and it asks so in the same breath.
                first = (b"XREAD", b"COUNT", 1, b"BLOCK", block_ms, *streams)
                woken, answer = await self._wait(first, read)
                answer = answer or woken
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error
        return {
            key.decode(): [
                (entry.decode(), fields[1] if fields[0] == FIELD else _message(fields))
                for entry, fields in entries
            ]
            for key, entries in answer or ()
        }

    async def _wait(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Commands of which the first blocks, on a connection of their own."""
        line = self._reading.pop() if self._reading else self.another_line()
        try:
            replies = _well(await line.call(*commands))
        except BaseException:  # cancelled, it may still be blocked
            line.close()
            raise
        self._reading.append(line)
        return replies

    async def scan(self, key: str, page: int = 1_000) -> AsyncIterator[tuple[str, bytes]]:
        """Every entry of a stream, oldest first, a page at a time."""
        after = "-"
        while True:
            try:
                entries: Any = await self.redis.xrange(key, min=after, count=page)
            except RedisError as error:
                raise BusUnavailable(str(error)[:200]) from error
            for entry, fields in entries:
                yield entry.decode(), fields.get(FIELD, b"")
            if len(entries) < page:
                return
            after = f"({entries[-1][0].decode()}"

    async def trim(self, before: Mapping[str, str], exact: bool = False) -> None:
        """Drop the entries below the given ids: what a cursor has passed, never by length.

        Without `exact` some stay, which is cheaper.
        """
        if not before:
            return
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for key, minid in before.items():
                    pipe.xtrim(key, minid=minid, approximate=not exact)
                await pipe.execute()
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def hash(self, key: str) -> dict[bytes, bytes]:
        """All fields of a hash; {} where there is none."""
        try:
            return cast(dict[bytes, bytes], await self.redis.hgetall(key))
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def forget(self, key: str) -> None:
        """Drop a stream with all that it holds."""
        try:
            await self.redis.delete(key)
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def incarnation(self) -> str:
        """Which life of the server this is; changes when it restarts."""
        try:
            return str((await self.redis.info("server"))["run_id"])
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error

    async def last_ids(self, keys: Sequence[str]) -> list[str]:
        """The newest id that each stream has given, in one round trip."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.xinfo_stream(key)
                found = await pipe.execute(raise_on_error=False)
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error
        return [_last_id(one) for one in found]

    async def last_id(self, key: str) -> str:
        """The newest id that the stream has given, 0-0 where there is no stream."""
        try:
            got = (await self.redis.xinfo_stream(key))["last-generated-id"]
        except ResponseError:
            return "0-0"
        except RedisError as error:
            raise BusUnavailable(str(error)[:200]) from error
        return got.decode() if isinstance(got, bytes) else str(got)


def _packing(kind: type[Any]) -> type[Any]:
    """The same kind of connection, which packs in C what it sends, not argument by argument."""

    class Packing(kind):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            if isinstance(args[0], str):  # "XINFO STREAM" is two arguments
                args = (*args[0].encode().split(), *args[1:])
            return [pack_command(args)]

    return Packing


def _well(replies: list[Any]) -> list[Any]:
    """The same, where none of them is an error."""
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


def _last_id(info: Any) -> str:
    """The newest id that a stream has given, by what was said about it; 0-0 where there is none."""
    if isinstance(info, ResponseError):
        return "0-0"
    if isinstance(info, RedisError):
        raise BusUnavailable(str(info)[:200]) from info
    got = info["last-generated-id"]
    return got.decode() if isinstance(got, bytes) else str(got)


def _message(fields: Sequence[bytes]) -> bytes:
    """The field `message` of an entry that has others before it, or none."""
    return dict(zip(fields[::2], fields[1::2], strict=False)).get(FIELD, b"")


def by_stream(answer: Any) -> dict[str, Entries]:
    """What XREAD or XREADGROUP answered, by stream; RESP3 wraps entries once more than RESP2."""
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    return {key.decode(): _flat(entries) for key, entries in streams}


def _flat(entries: Any) -> Entries:
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple):
        return [entry for part in entries for entry in part]
    return cast(Entries, entries)


def id_parts(entry_id: str) -> tuple[int, int]:
    """A Redis stream id as two integers, which compare as Redis compares."""
    time, _, sequence = entry_id.partition("-")
    return int(time), int(sequence or 0)
