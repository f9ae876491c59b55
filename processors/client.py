"""Publishing commands and waiting for their outcomes: the engine as its own programs use it.

A call sends its command again, under the same id, until the outcome has come: Redis may lose both
ways, and the processor answers a repeat with the first outcome. One private reply stream and one
reader serve all calls of a client.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Self

import asyncpg
import orjson
import structlog
from redis.exceptions import RedisError
from uuid_utils import uuid7

from aggregates.problem import Refused
from processors.access.own import nothing, shown, tenant_of
from processors.keys import exported_keyring, keyring_of
from processors.replies import decode_outcome
from processors.sealing import sealed
from processors.settings import Addresses, Settings
from streams.bus import Bus, BusFull, BusUnavailable
from streams.codec import COMMAND_BYTES_MAX, REPLY_PREFIX, encode_command
from streams.ending import end
from streams.log import LogUnavailable
from streams.logs.postgres import PostgresLog
from streams.message import DEFAULT_TENANT, Command, Outcome
from streams.partition import COMMANDS_INBOX, commands_key, partition_of

TIMEOUT_S = 30.0  # a healthy engine answers in milliseconds; a fail-over takes about a lease
RESEND_S = 3.0  # longer than any healthy answer, shorter than people's patience
RETRY_S = 0.2  # between attempts to reach a Redis that is away
FLUSH_BYTES_MAX = 4 * 1024 * 1024  # one script call; Redis serves nobody else meanwhile
REPLIES_MAX = 1_000  # one read of the reply stream, which is trimmed after each
REPLIES_KEPT_S = 600  # a client that was killed leaves its reply stream for so long
CALLS_MAX = 10_000  # that wait for an outcome at once
CONNECTIONS_MAX = 4
CLOSE_S = 2.0


class Rejected(Exception):
    """The engine understood the command and refused it."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        super().__init__(str(problem.get("detail") or problem.get("code") or self.__doc__))


class NoAnswer(Exception):
    """No outcome came in time: the command may still be carried out."""


class Client:
    """A publisher of commands; `async with Client(addresses) as client`."""

    def __init__(
        self, addresses: Addresses, actor: str = "cli", settings: Settings | None = None
    ) -> None:
        """`settings` say which keys seal what is sent, and which token is shown with it."""
        self.token = nothing if settings is None else shown(settings)
        self.actor = actor
        self.origin: str | None = None
        """From where commands are given that do not say so themselves."""
        self.bus = Bus(addresses.redis_url)
        self._addresses = addresses
        self._partitions: int | None = None
        self._log: PostgresLog | None = None
        self.keys = exported_keyring(settings.tenant_keys) if settings else None
        self._settings = settings
        self._replies = f"{REPLY_PREFIX}{uuid7()}"
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._outbox: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._addresses.database_url:
            self._log = PostgresLog(self._addresses.database_url, CONNECTIONS_MAX)
            try:
                await self._log.open()
                self._partitions = await self._log.partitions()
                if self._settings is not None:
                    self.keys = keyring_of(self._settings, self._log) or self.keys
            except BaseException:
                await self.__aexit__(None, None, None)
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in (self._reader, self._flusher):
            await end(task)
        if self._reader is not None:
            with contextlib.suppress(RedisError):
                await self.bus.redis.delete(self._replies)
        await self.bus.close()
        if self._log is not None:
            # A query that hangs must not keep a command from ending.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._log.close(), CLOSE_S)

    @property
    def log(self) -> PostgresLog:
        """The log, for reading."""
        assert self._log is not None, "this client was made without a database"
        return self._log

    @property
    def pool(self) -> asyncpg.Pool:
        """Connections to the read models."""
        return self.log.pool

    async def publish(self, command: Command) -> None:
        """Put a command into its stream; raises BusUnavailable when that is not known to be done.

        BusFull is one of these, and says that it was not.

        What is published while a batch is under way goes together as the next one.
        """
        command = await self._sealed(self._named(command))
        message = encode_command(command)
        if len(message) > COMMAND_BYTES_MAX:
            detail = (
                f"The command has {len(message):,} bytes; at most {COMMAND_BYTES_MAX:,} may be."
            )
            raise Rejected(Refused("TOO_LARGE", detail).problem())
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append((self._stream(command.root), message, sent))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="client publishes")
        await sent

    async def call(self, command: Command, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Publish a command and wait for its outcome; raises Rejected, NoAnswer or BusFull.

        BusFull also where CALLS_MAX calls wait already; nothing was sent then.
        """
        if len(self._waiting) >= CALLS_MAX:
            raise BusFull(f"{CALLS_MAX:,} calls of this client wait already. Try again later.")
        command = await self._sealed(self._named(command.but(reply_to=self._replies)))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        answer: asyncio.Future[Outcome] = loop.create_future()
        refused: BusFull | None = None  # as long as every attempt was, nothing is under way
        attempts = refusals = 0
        self._waiting[command.id] = answer
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_replies(), name="client replies")
        try:
            while (left := deadline - loop.time()) > 0:
                patience = min(left, RESEND_S)
                attempts += 1
                try:
                    await asyncio.wait_for(self.publish(command), patience)
                except (BusUnavailable, TimeoutError) as error:
                    patience = min(left, RETRY_S)
                    if isinstance(error, BusFull):
                        refused, refusals = error, refusals + 1
                done, _ = await asyncio.wait([answer], timeout=patience)
                if done:
                    outcome = answer.result()
                    if outcome.problem is not None:
                        raise Rejected(outcome.problem)
                    return outcome
        finally:
            self._waiting.pop(command.id, None)
        if refused is not None and refusals == attempts:
            raise refused
        raise NoAnswer(f"No outcome of {command.type} {command.subject} came in {timeout_s:g} s.")

    def _named(self, command: Command) -> Command:
        """The command with who gives it: whose token it shows, of which tenant."""
        token, tenant = command.token or self.token(), command.tenant
        if token is not None and tenant == DEFAULT_TENANT:
            tenant = tenant_of(token) or tenant  # for its keys; the engine asks the token itself
        return command.but(
            actor=command.actor or self.actor,
            token=token,
            tenant=tenant,
            origin=command.origin or self.origin,
        )

    async def _sealed(self, command: Command) -> Command:
        """The command with its payloads sealed; one that is sealed stays the same."""
        try:
            return await sealed(self.keys, command)
        except Refused as refusal:
            raise Rejected(refusal.problem()) from None
        except LogUnavailable as error:
            raise BusUnavailable(f"The tenant's keys could not be read: {error}") from error

    def _stream(self, root: str) -> str:
        if self._partitions is None:
            return COMMANDS_INBOX
        return commands_key(partition_of(root, self._partitions))

    async def _flush(self) -> None:
        """Send what waits, batch after batch, until nothing does."""
        while self._outbox:
            size = count = 0
            while count < len(self._outbox) and (not count or size < FLUSH_BYTES_MAX):
                size += len(self._outbox[count][1])
                count += 1
            batch, self._outbox = self._outbox[:count], self._outbox[count:]
            messages: dict[str, list[bytes]] = {}
            for stream, message, _ in batch:
                messages.setdefault(stream, []).append(message)
            failure: Exception | None = None
            try:
                await self.bus.make_sure_of_room()
                await self.bus.append(messages)
            except BusUnavailable as error:
                failure = error
            for _, _, sent in batch:
                if not sent.done():
                    sent.set_exception(failure) if failure else sent.set_result(None)

    async def _read_replies(self) -> None:
        """Hand outcomes to the calls that wait for them, until the client is closed."""
        last = "0-0"
        while True:
            try:
                streams = await self.bus.read({self._replies: last}, REPLIES_MAX)
                for entry, message in streams.get(self._replies, ()):
                    last = entry
                    self._answer(message)
                if streams:
                    await self.bus.trim({self._replies: last}, exact=True)
                    await self.bus.redis.expire(self._replies, REPLIES_KEPT_S)
            except (BusUnavailable, RedisError):
                last = "0-0"  # a Redis that begins anew may give smaller ids
                await asyncio.sleep(RETRY_S)

    def _answer(self, message: bytes) -> None:
        try:
            outcome = decode_outcome(message)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            structlog.get_logger(__name__).warning("reply_not_understood", bytes=len(message))
            return
        waiting = self._waiting.get(outcome.command_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)
