"""Clients of a simulation: they give commands, again and again under the same id, until told."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import orjson

from streams.codec import encode_command
from streams.message import Command
from streams.partition import commands_key, partition_of
from tests.simulation.servers import Redis, Weather

REPLIES = "replies:client"
RESEND_S = 1.5
LOOK_S = 0.05


class Clients:
    """Everybody who gives commands, and what they were told."""

    def __init__(
        self, redis: Redis, weather: Weather, chance: random.Random, partitions: int
    ) -> None:
        self.redis = redis
        self.weather = weather
        self.chance = chance
        self.partitions = partitions
        self.sent: list[dict[str, Any]] = []
        self.acks: list[dict[str, Any]] = []
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = 0

    async def listen(self) -> None:
        """Hand what was answered to whoever waits."""
        after, life = "0-0", self.redis.life
        while True:
            await asyncio.sleep(LOOK_S)
            if life != self.redis.life:
                after, life = "0-0", self.redis.life
            found = await self.redis.read({REPLIES: after}, 100)
            for entry, raw in found.get(REPLIES, ()):
                after = entry
                said = orjson.loads(raw)
                waiting = self._waiting.get(said["command"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)

    async def call(self, kind: str, aggregate: str, root: str, **data: Any) -> dict[str, Any]:
        """Give a command until its outcome has come; returns that."""
        self._numbers += 1
        name = f"client-{self._numbers}"
        command = Command(name, kind, aggregate, root, data, actor="client", reply_to=REPLIES)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[name] = answer
        self.sent.append({"id": name})
        while not answer.done():
            self.give(command)
            if self.weather.on and self.chance.random() < 0.1:
                self.give(command)  # twice at once
            await asyncio.wait([answer], timeout=RESEND_S)
        said = answer.result()
        ack = {"id": name, "first": said["first"], "last": said["last"]}
        if "problem" in said:
            ack["problem"] = said["problem"]["code"]
        self.acks.append(ack)
        return said

    def give(self, command: Command) -> None:
        """XADD, if Redis is there and nothing is lost on the way."""
        if self.weather.bus_away or (self.weather.on and self.chance.random() < 0.03):
            return
        key = commands_key(partition_of(command.root, self.partitions))
        self.redis.add(key, encode_command(command))
