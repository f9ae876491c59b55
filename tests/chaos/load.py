"""The load of a chaos run: seeded executions in many shapes, given as clients give them.

What a client is told is written down at once: `sent` names every command before it leaves, `acks`
every answer. The checker reads these files, not our memory.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from processors import commands
from processors.client import Client, NoAnswer, Rejected
from streams.bus import BusUnavailable
from streams.codec import encode_command
from streams.message import Command
from streams.partition import COMMANDS_INBOX, commands_key, partition_of
from tests.chaos.shapes import ROLES, Shape, open_workloads, shapes

__all__ = ["ROLES", "Load"]

PARTITIONS = 16
OPEN_MAX = 40  # executions under way at once
ANSWER_S = 15.0  # then the same command is given again
TAIL_S = 0.2
COPIES_MAX = 100

ENDS = ("ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled")
ENDED = """
SELECT e.partition, e.position, e.type, e.subject FROM unnest($1::int[], $2::bigint[])
    AS at(partition, position)
JOIN events AS e ON e.partition = at.partition AND e.position > at.position
ORDER BY e.partition, e.position
"""


@dataclass
class Run:
    """One execution that was asked for, and what may become of it."""

    execution_id: str
    shape: Shape
    cancelled: bool = False
    ended: str = ""
    retried: bool = False

    @property
    def ends(self) -> set[str]:
        """How it may end."""
        ends = {self.shape.end, self.shape.or_else or self.shape.end}
        return ends | ({"ExecutionCancelled"} if self.cancelled else set())


class Load:
    """Gives executions, follows them to their ends, and keeps the two files."""

    def __init__(self, client: Client, directory: Path, seed: int) -> None:
        self.client = client
        self.directory = directory
        self.runs: dict[str, Run] = {}
        self.counted: Counter[str] = Counter()
        self.asking: set[str] = set()
        """The commands whose outcome a client waits for."""
        self._seed = seed
        self._sent = (directory / "sent.jsonl").open("a")
        self._acks = (directory / "acks.jsonl").open("a")
        self._shapes = shapes()
        self._large: list[Shape] = []
        self._workflows: dict[str, str] = {}
        self.following: set[asyncio.Task[None]] = set()
        self._under_way = 0

    async def close(self) -> None:
        """Nothing more is written down."""
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)
        self._sent.close()
        self._acks.close()

    @property
    def open(self) -> list[Run]:
        """The executions that have not ended."""
        return [run for run in self.runs.values() if not run.ended]

    async def prepare(self, large: int = 0) -> None:
        """Create the workflows; `large` is how many of the open workloads there are."""
        self._large = open_workloads()[:large]
        for shape in [*self._shapes, *self._large]:
            creating = commands.create_workflow(definition=shape.document)
            await self.give(creating)
            self._workflows[shape.name] = creating.root

    async def run(self, stop: asyncio.Event, pause_s: float = 0.02) -> None:
        """Begin executions until `stop` is set; at most OPEN_MAX at once."""
        number = len(self.runs)
        while not stop.is_set():
            if self._under_way >= OPEN_MAX:
                await asyncio.sleep(0.05)
                continue
            self._under_way += 1
            self._follow(self._execute(number))
            number += 1
            await asyncio.sleep(pause_s)

    async def follow(self, database: Any) -> None:
        """Note the ends of executions from the log, until cancelled."""
        reached = dict.fromkeys(range(PARTITIONS), 0)
        while True:
            await asyncio.sleep(TAIL_S)
            try:
                async with database() as connection:
                    while True:
                        rows = await connection.fetch(ENDED, list(reached), list(reached.values()))
                        for partition, position, kind, subject in rows:
                            reached[partition] = position
                            self._note(kind, subject.partition("/")[2])
                        await asyncio.sleep(TAIL_S)
            except (OSError, TimeoutError, Exception) as error:
                self.counted[f"follower: {type(error).__name__}"] += 1

    def _note(self, kind: str, execution_id: str) -> None:
        run = self.runs.get(execution_id)
        if run is None or run.ended:
            return
        if kind == "InputRequested":
            self._follow(self.give(commands.provide_input(execution_id, "a", {"yes": True})))
        elif kind == "ExecutionFailed" and run.shape.retried and not run.retried:
            run.retried = True
            self._follow(self.give(commands.retry_execution(execution_id, reason="chaos")))
        elif kind in ENDS:
            run.ended = kind
            self._under_way -= 1

    def _follow(self, doing: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(doing)
        self.following.add(task)
        task.add_done_callback(self.following.discard)

    async def _execute(self, number: int) -> None:
        """One execution, and the oddities that its number brings with it."""
        chance = random.Random(f"{self._seed}/{number}")
        shape = self._choose(chance, number)
        run = Run(f"x{self._seed}-{number}-{commands.new_id()}", shape)
        self.runs[run.execution_id] = run
        starting = commands.start_execution(
            self._workflows[shape.name],
            execution_id=run.execution_id,
            input={"n": number},
            timeout_seconds=shape.timeout_s,
        )
        odd = chance.random()
        if odd < 0.1:  # reordered: what cannot be yet
            early = commands.cancel_execution(run.execution_id, "too early")
            # Where nobody knows when it will arrive, it may come in time to cancel.
            run.cancelled = not await self._publish(early, _answer(run.execution_id))
        if odd > 0.8:
            await self._publish(*[starting] * chance.randint(1, 3), inbox=odd > 0.9)
        cancel_it = chance.random() < 0.08 and not shape.retried
        run.cancelled |= cancel_it
        await self.give(starting)
        if chance.random() < 0.15:
            copies = COPIES_MAX if chance.random() < 0.1 else chance.randint(1, 5)
            await self._publish(*[starting] * copies)
        if shape.signal:
            await asyncio.sleep(chance.random())
            await self.give(commands.signal_execution(run.execution_id, shape.signal))
        if cancel_it:
            await asyncio.sleep(chance.random())
            cancel = commands.cancel_execution(run.execution_id, "chaos")
            again = commands.cancel_execution(run.execution_id, "twice")
            await asyncio.gather(self.give(cancel), self.give(again))
        elif chance.random() < 0.08:
            await self._pause(run)
        if odd < 0.05:
            other = starting.but(data=starting.data | {"input": "another body"})
            await self._publish(other)
            self.counted["same id, other body"] += 1

    async def _pause(self, run: Run) -> None:
        await self.give(commands.pause_execution(run.execution_id, "chaos"))
        await asyncio.sleep(0.2)
        await self.give(commands.resume_execution(run.execution_id, "chaos"))
        self.counted["paused"] += 1

    def _choose(self, chance: random.Random, number: int) -> Shape:
        if self._large and number % 60 == 20:
            return self._large[number // 60 % len(self._large)]
        return chance.choices(self._shapes, [shape.weight for shape in self._shapes])[0]

    async def give(self, command: Command) -> dict[str, Any]:
        """Give a command until its outcome is known, and write the outcome down."""
        self._write(self._sent, id=command.id, subject=command.subject, type=command.type)
        self.asking.add(f"{command.type} {command.subject} ({command.id})")
        while True:
            try:
                outcome = await self.client.call(command, ANSWER_S)
                told: dict[str, Any] = {
                    "partition": outcome.partition,
                    "first": outcome.first,
                    "last": outcome.last,
                }
            except Rejected as rejected:
                told = {"problem": rejected.problem.get("code")}
            except NoAnswer:
                self.counted["given again"] += 1
                continue
            self._write(self._acks, id=command.id, subject=command.subject, **told)
            self.asking.discard(f"{command.type} {command.subject} ({command.id})")
            return told

    async def _publish(self, *said: Command, inbox: bool = False) -> bool:
        """Put commands into their stream, known or not to have come there; Redis may lose them."""
        out: dict[str, list[bytes]] = {}
        for command in said:
            self._write(self._sent, id=command.id, subject=command.subject, type=command.type)
            key = COMMANDS_INBOX if inbox else commands_key(partition_of(command.root, PARTITIONS))
            out.setdefault(key, []).append(encode_command(command))
        try:
            await self.client.bus.append(out)
        except (BusUnavailable, RedisError, OSError):
            self.counted["not published"] += len(said)
            return False
        self.counted["published"] += len(said)
        return True

    @staticmethod
    def _write(file: Any, **told: Any) -> None:
        file.write(json.dumps(told) + "\n")
        file.flush()


def _answer(execution_id: str) -> Command:
    """A task's answer before anybody asked."""
    said = {"task": "t", "attempt": 1, "agent": "nobody", "output": None}
    return commands.command("execution", execution_id, "CompleteTask", said)
