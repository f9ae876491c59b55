"""Hosts in a Redis in memory, a read model in a dictionary, and a clock that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from processors.agents.wire import Assignment
from processors.allocation.directory import Directory
from processors.allocation.states import State
from processors.allocation.watch import Watch
from processors.task_sender import TaskSender
from streams.bus import Bus
from streams.codec import decode_command
from streams.log import Cursor, LogUnavailable
from streams.message import Command
from streams.partition import HOSTS, HOSTS_CARDS, commands_key
from tests.fake_bus import FakeBus

ANSWERS = commands_key(0)


@dataclass
class World:
    """One process that watches, and everything that it looks at; one partition, which is ours."""

    now: float = 0.0
    epoch: int | None = 3
    away: bool = False
    read_model: dict[str, State] = field(default_factory=dict)
    bus: FakeBus = field(default_factory=FakeBus)
    beats: dict[str, int] = field(default_factory=dict)
    offset: str = "0-0"
    asked_for: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = Directory(cast(Bus, self.bus), self, lambda: self.now)
        log = cast(Any, self)
        bus = cast(Bus, self.bus)
        self.sender = TaskSender(log, bus, 1, self.directory, lambda partition: self.epoch)
        self.watch = Watch(self.directory, self, self.sender)

    # What the process asks

    async def cursors(self, consumer: str) -> list[Cursor]:
        """The writer has read so far."""
        return [Cursor(consumer, 0, stream_offset=self.offset)]

    async def kept_from_work(self) -> dict[str, State]:
        """As the table has it."""
        if self.away:
            raise LogUnavailable("away")
        kept = self.read_model.items()
        return {n: s for n, s in kept if s.status != "active" or s.circuit != "closed" or s.lost}

    async def known(self, agents: Iterable[str]) -> dict[str, State]:
        """As the table has it."""
        asked = set(agents)
        self.asked_for.append(asked)
        return {name: self.read_model[name] for name in asked & self.read_model.keys()}

    # What happens

    def host(self, name: str, *agents: dict[str, Any], roles: tuple[str, ...] = ("r",)) -> None:
        """A host shows its cards, and begins to beat."""
        cards = [{"tenant": "default", "roles": roles, "capacity": 1} | card for card in agents]
        self.bus.hashes.setdefault(HOSTS_CARDS, {})[name.encode()] = orjson.dumps(cards)
        self.beats[name] = self.beats.get(name, 0) + 1_000
        self.beat(name)

    def beat(self, name: str, **said: Any) -> None:
        """A host shows that it lives."""
        self.beats[name] += 1
        word = orjson.dumps({"beat": self.beats[name], "every_s": 1.0, "running": {}} | said)
        self.bus.hashes.setdefault(HOSTS, {})[name.encode()] = word

    def leave(self, name: str) -> None:
        """A host stops in order."""
        for key in (HOSTS, HOSTS_CARDS):
            self.bus.hashes.get(key, {}).pop(name.encode(), None)

    def registered(self, agent: str, **state: Any) -> None:
        """What the read model says of an agent."""
        before = self.read_model.get(agent, State(agent, "default", "active", "closed", False, ""))
        self.read_model[agent] = before._replace(**state)

    async def pass_(self, seconds: float, *beating: str) -> None:
        """Time passes, second by second: hosts beat, and the process looks."""
        for _ in range(round(seconds)):
            self.now += 1.0
            for name in beating:
                self.beat(name)
            await self.watch.look()

    async def seen(self, *hosts: str) -> None:
        """The process has found out that these hosts live."""
        await self.watch.look()
        await self.pass_(1, *hosts)

    # What was said

    @property
    def commands(self) -> list[Command]:
        """What was told to agents' aggregates."""
        return [decode_command(raw) for raw in self.bus.messages(ANSWERS)]

    def told(self) -> list[tuple[str, str]]:
        """The same in short."""
        return [(one.type, one.root) for one in self.commands]


def task(name: str, role: str = "r") -> Assignment:
    """A task of one execution."""
    return Assignment("e", name, 1, role, "default", {}, {}, 60.0, ANSWERS)
