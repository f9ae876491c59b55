"""Agents of a simulation: they read the tasks' streams and answer: well, badly, twice, late, never.

What a host does with consumer groups on Redis is done here on the streams themselves: an entry
stays until it is answered, and one that nobody answers is delivered again, counted higher.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from processors.agents.wire import COMPENSATION, Assignment, decode_assignment
from streams.codec import encode_command
from streams.message import Command
from tests.simulation.servers import Redis, Weather

LOOK_S = 0.05
LEASE_S = 3.0
"""An entry that is not answered for so long is given to another agent."""
RETRY_S = 0.3

MOODS = (
    {"well": 60, "slowly": 8, "badly": 5, "twice": 6, "dies": 6, "comes back": 6, "asks": 4}
    | {"hangs": 2},
    {"well": 40, "badly": 50, "twice": 5, "dies": 5},
    {"well": 30, "slowly": 20, "comes back": 30, "dies": 20},
    {"well": 100},
)
"""How often each thing happens, in one run and in another."""


class Agents:
    """All agents of all roles; what each does with a task follows from the seed and the task."""

    def __init__(self, redis: Redis, weather: Weather, seed: int) -> None:
        self.redis = redis
        self.weather = weather
        self.seed = seed
        self.seen: Counter[str] = Counter()
        self._working: set[asyncio.Task[None]] = set()
        self.mood = MOODS[seed % len(MOODS)]
        self._given: dict[tuple[int, str, str], tuple[float, int]] = {}
        self._done: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    async def run(self) -> None:
        """Look for tasks, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            if self.weather.bus_away:
                continue
            for key in [key for key in self.redis._streams if key.startswith("tasks:")]:
                for entry, raw in zip(self.redis.ids(key), self.redis.messages(key), strict=True):
                    place = (self.redis.life, key, entry)
                    since, times = self._given.get(place, (float("-inf"), 0))
                    if loop.time() - since < LEASE_S:
                        continue
                    self.seen["redelivered"] += times > 0
                    self._given[place] = (loop.time(), times + 1)
                    task = decode_assignment(raw)
                    work = self._work(task, place, task.delivery + times + 1)
                    working = loop.create_task(work, name=f"agent at {task.message_id}")
                    self._working.add(working)
                    working.add_done_callback(self._working.discard)

    async def _work(self, task: Assignment, place: tuple[int, str, str], delivery: int) -> None:
        chance = random.Random(f"{self.seed}/{task.message_id}/{delivery}")
        way = chance.choices([*self.mood], [*self.mood.values()])[0]
        agent = f"agent-{chance.randrange(6)}-{delivery}"
        said = {"task": task.task_id, "attempt": task.attempt, "agent": agent}
        said |= {"delivery": delivery} if delivery != 1 else {}
        if task.message_id in self._done:  # asked again: the answer is known
            self.seen["answered from memory"] += 1
            return await self._answer(task, place, self._done[task.message_id], "again")
        if task.kind != COMPENSATION and chance.random() < 0.4:
            await self._send(task, [("StartTask", said)], f"{delivery}/start")
        await asyncio.sleep(chance.random() * 0.3)
        done = ("CompleteTask", said | {"output": task.task_id})
        failed = ("FailTask", said | {"error": "boom"})
        if task.kind == COMPENSATION:
            done, failed = ("CompleteCompensation", done[1]), ("FailCompensation", failed[1])
        self.seen[way] += 1
        match way:
            case "dies" | "hangs":
                return
            case "slowly":
                await asyncio.sleep(chance.random() * LEASE_S * 2)
            case "badly":
                return await self._answer(task, place, [failed], f"{delivery}/failed")
            case "asks" if task.kind != COMPENSATION and task.answer is None:
                asked = [("RequestInput", said | {"prompt": "well?"})]
                return await self._answer(task, place, asked, f"{delivery}/asked")
            case "comes back":
                await asyncio.sleep(LEASE_S * (1 + chance.random()))
                return await self._send(task, [done], f"{delivery}/late")
            case "twice":
                await self._answer(task, place, [done], f"{delivery}/done")
                return await self._send(task, [done], f"{delivery}/twice")
        await self._answer(task, place, [done], f"{delivery}/done")

    async def _answer(
        self, task: Assignment, place: tuple[int, str, str], said: Any, name: str
    ) -> None:
        """The answer goes out in the instant in which the entry goes away."""
        self._done.setdefault(task.message_id, said)
        await self._send(task, said, name)
        life, key, entry = place
        if life == self.redis.life:
            self.redis.lose(key, [entry])

    async def _send(self, task: Assignment, said: Any, name: str) -> None:
        while self.weather.bus_away:  # noqa: ASYNC110 - as somebody would who knows no better
            await asyncio.sleep(RETRY_S)
        for number, (kind, data) in enumerate(said):
            command = Command(
                f"{task.message_id}/{name}/{number}",
                kind,
                "execution",
                task.execution_id,
                data,
                task.tenant,
                str(data["agent"]),
            )
            self.redis.add(task.reply_to, encode_command(command))
