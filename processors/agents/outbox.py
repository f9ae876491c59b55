"""Answers on their way out: kept until Redis has them, together with the tasks that they settle.

Answering a task and taking it off its stream is one script, so no crash lies between the two: a
task that was answered is not done again. What was sent and not confirmed is sent again with the
same command ids, which the engine recognises. A host that was stopped for long may have lost its
tasks meanwhile: it looks first, and leaves to others what is theirs; its answers go out all the
same, for the engine to refuse and record.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from math import inf
from typing import Any

import structlog
from redis.exceptions import NoScriptError, RedisError

from processors.access.own import Shown, nothing
from streams.bus import Bus
from streams.codec import stamped
from streams.partition import COMMANDS_INBOX

logger = structlog.get_logger(__name__)

GROUP = "agents"

FLUSH_ENTRIES_MAX = 1_000  # one script call stays under 10 ms of the server's time
FLUSH_BYTES_MAX = 4 * 1024 * 1024
OUTBOX_ENTRIES_MAX = 10_000  # with Redis away, no more tasks are taken than can be answered
OUTBOX_BYTES_MAX = 64 * 1024 * 1024
RETRY_S, RETRY_S_MAX = 0.02, 1.0
MEMORY_ANSWERS_MAX = 10_000  # answers that are given again instead of doing a task again
MEMORY_BYTES_MAX = 64 * 1024 * 1024
LETTERS_MAX = 1_000  # of up to 64 KiB each; the engine takes them out every second

# Answers first: where memory is full Redis refuses them, the script ends, and the tasks stay.
# ARGV: the owner where it is not sure, the number of reply streams, then for each stream in KEYS a
# number and so many arguments.
SETTLE = """
local owner, replies, at = ARGV[1], tonumber(ARGV[2]), 3
for k, key in ipairs(KEYS) do
  local n = tonumber(ARGV[at])
  if k <= replies then
    for i = at + 1, at + n do
      if key == 'dead-letters' then
        redis.call('XADD', key, 'MAXLEN', '~', LETTERS_MAX, '*', 'message', ARGV[i])
      else
        redis.call('XADD', key, '*', 'message', ARGV[i])
      end
    end
  elseif owner ~= '' then
    for i = at + 1, at + n do
      local held = redis.pcall('XPENDING', key, 'agents', ARGV[i], ARGV[i], 1, owner)
      if held[1] then
        redis.call('XACK', key, 'agents', ARGV[i])
        redis.call('XDEL', key, ARGV[i])
      end
    end
  else
    redis.pcall('XACK', key, 'agents', unpack(ARGV, at + 1, at + n))
    redis.pcall('XDEL', key, unpack(ARGV, at + 1, at + n))
  end
  at = at + n + 1
end
return #KEYS
""".replace("LETTERS_MAX", str(LETTERS_MAX))
SETTLE_DIGEST = sha1(SETTLE.encode()).hexdigest()  # noqa: S324


@dataclass(slots=True)
class Batch:
    """What goes in one call: messages by reply stream, and entries to settle by task stream."""

    messages: dict[str | bytes, list[bytes]] = field(default_factory=dict)
    entries: dict[bytes, list[bytes]] = field(default_factory=dict)
    count: int = 0
    size: int = 0
    since: float = inf
    """When it was certain last, of all its entries, that they are this host's."""

    def arguments(self, owner: str, token: str | None = None) -> list[Any]:
        """Of the script: how many keys, the keys, and what belongs to each.

        Commands get the token.
        """
        arguments: list[Any] = [len(self.messages) + len(self.entries)]
        arguments += [*self.messages, *self.entries, owner, len(self.messages)]
        for stream, messages in self.messages.items():
            arguments.append(len(messages))
            if token is not None and _are_commands(stream):
                arguments += [stamped(message, token) for message in messages]
            else:
                arguments += messages
        for entries in self.entries.values():
            arguments.append(len(entries))
            arguments += entries
        return arguments


def _are_commands(stream: str | bytes) -> bool:
    name = stream if isinstance(stream, str) else stream.decode()
    return name == COMMANDS_INBOX or name.startswith(f"{COMMANDS_INBOX}:")


class Outbox:
    """The one way out of a host; everything that became ready meanwhile goes in one call."""

    def __init__(self, bus: Bus, name: str, sure_s: float, token: Shown = nothing) -> None:
        """`sure_s`: for so long nobody else can have taken an entry over."""
        self._token = token
        self._bus = bus
        self._name = name
        self._sure_s = sure_s
        self._sending: Batch | None = None
        self._batches: deque[Batch] = deque()
        self._count = 0
        self._size = 0
        self._ready = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def full(self) -> bool:
        """Whether answers have piled up, so that no more tasks may be taken."""
        return self._count >= OUTBOX_ENTRIES_MAX or self._size >= OUTBOX_BYTES_MAX

    def send(self, stream: str | bytes, message: bytes) -> Batch:
        """Send a message."""
        batch = self._open(len(message))
        batch.messages.setdefault(stream, []).append(message)
        return batch

    def answer(
        self, stream: str | bytes, message: bytes, tasks: bytes, entry: bytes, since: float
    ) -> None:
        """Send a message, and in the same instant take its task off its stream."""
        batch = self.send(stream, message)
        batch.entries.setdefault(tasks, []).append(entry)
        if since < batch.since:
            batch.since = since

    def settle(self, tasks: bytes, entry: bytes, since: float = inf) -> None:
        """Take a task off its stream; `since` when it is certain that it is this host's."""
        batch = self._open(0)
        batch.entries.setdefault(tasks, []).append(entry)
        if since < batch.since:
            batch.since = since

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """What was answered, and is not known to be off its stream."""
        sending = [] if self._sending is None else [self._sending]
        for batch in (*sending, *self._batches):
            for stream, entries in batch.entries.items():
                yield from ((stream, entry) for entry in entries)

    def _open(self, size: int) -> Batch:
        """The batch that has room for one thing more."""
        self._count += 1
        self._size += size
        last = self._batches[-1] if self._batches else None
        if last is None or last.count >= FLUSH_ENTRIES_MAX or last.size >= FLUSH_BYTES_MAX:
            last = Batch()
            self._batches.append(last)
            self._ready.set()
            self.idle.clear()
        last.count += 1
        last.size += size
        return last

    async def run(self, sent: Callable[[], None]) -> None:
        """Send what is ready, for ever; `sent` is called whenever room was made."""
        while True:
            await self._ready.wait()
            while self._batches:
                batch = self._sending = self._batches.popleft()
                await self._deliver(batch)
                self._sending = None
                self._count -= batch.count
                self._size -= batch.size
                sent()
            self._ready.clear()
            self.idle.set()

    async def _deliver(self, batch: Batch) -> None:
        """Try until Redis has it."""
        line, clock, wait_s = self._bus.line, asyncio.get_running_loop().time, RETRY_S
        while True:
            sure = clock() - batch.since < self._sure_s
            arguments = batch.arguments("" if sure else self._name, self._token())
            try:
                try:
                    await line.one(b"EVALSHA", SETTLE_DIGEST, *arguments)
                except NoScriptError:
                    await line.one(b"SCRIPT", b"LOAD", SETTLE)
                    await line.one(b"EVALSHA", SETTLE_DIGEST, *arguments)
                return
            except (RedisError, OSError) as error:
                if wait_s == RETRY_S:
                    logger.warning("answers_wait", count=batch.count, error=str(error)[:200])
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_S_MAX)


class Memory:
    """The answers given last, by message id: a task that comes again gets the same one."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[bytes, int]] = OrderedDict()
        self._size = 0

    def get(self, message_id: str) -> tuple[bytes, int] | None:
        """The answer that was given to this message and to which delivery, if remembered."""
        return self._answers.get(message_id)

    def put(self, message_id: str, answer: bytes, delivery: int) -> None:
        """Remember an answer, and forget the oldest beyond the bounds."""
        before = self._answers.pop(message_id, None)
        self._answers[message_id] = (answer, delivery)
        self._size += len(answer) - (len(before[0]) if before else 0)
        while len(self._answers) > MEMORY_ANSWERS_MAX or self._size > MEMORY_BYTES_MAX:
            self._size -= len(self._answers.popitem(last=False)[1][0])
