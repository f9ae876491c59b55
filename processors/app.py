"""The composition root: which feeds a worker reads, and what works on their batches.

`faust -A processors.app worker --without-web` runs everything; `orchestrator worker` runs the same.
AGENTCORE_ROLES names the roles to run: commands, managers, projections (all by default).
"""

from __future__ import annotations

import os
import socket
from asyncio import get_running_loop
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from uuid_utils import uuid7

from processors.access.admission import admission
from processors.access.counted import quotas
from processors.access.own import engine_shown, nothing
from processors.allocation.directory import Directory
from processors.allocation.states import ReadModel
from processors.allocation.watch import Watch
from processors.command_feed import CommandFeed
from processors.command_processor import CommandProcessor
from processors.event_feed import EventFeed
from processors.hand_over import HandOver
from processors.inbox import Inbox
from processors.keys import keyring_of
from processors.letter_carrier import LetterCarrier
from processors.manager_states import Roster
from processors.managers import MANAGERS
from processors.process_manager import TOPIC as MANAGERS_TOPIC
from processors.process_manager import ProcessManager
from processors.projector import TOPIC as PROJECTIONS_TOPIC
from processors.projector import Projector
from processors.settings import Settings, read_settings
from processors.task_sender import TaskSender
from projections import PROJECTIONS
from streams.bus import Bus
from streams.leases import Leases
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.transport import App, make_app

PROJECTIONS_PACE_S = 0.02
"""Read models are so late at most where much happens, and cost a tenth of what they would."""

ROLES = ("commands", "managers", "projections")


class Worker:
    """One process's connections and the feeds of its roles; connects when Faust starts them."""

    def __init__(
        self, settings: Settings, roles: Iterable[str] = ROLES, name: str | None = None
    ) -> None:
        from processors.running import find

        addresses = find(settings)
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid7()}"
        role = None if settings.auth == "none" else "agentcore_worker"
        self.log = PostgresLog(addresses.database_url, role=role)
        self.bus = Bus(addresses.redis_url)
        self.keys = keyring_of(settings, self.log)
        self.engine = engine_shown(settings)
        self.feeds: list[tuple[CommandFeed | EventFeed, Any]] = []
        self.beside: HandOver | None = None
        wanted = set(roles)
        if "commands" in wanted:
            self.feeds.append(self._commands())
        if "managers" in wanted:
            self.feeds.append(self._managers())
        if "projections" in wanted:
            self.feeds.append(self._projections())

    def _leases(self, consumer: str) -> Leases:
        return Leases(self.log, consumer, self.name, self.settings.lease_s)

    def _commands(self) -> tuple[CommandFeed, CommandProcessor]:
        processor = CommandProcessor(
            self.log,
            self.bus,
            self._leases(WRITER),
            lambda: datetime.now(UTC),
            0,
            keys=self.keys,
            admission=admission(self.settings),
            quotas=quotas(self.settings, self.log),
        )
        self.beside = processor.hand_over = HandOver(processor.committed)
        inbox = Inbox(self.log, self.bus, 0, self.name, self.keys)
        return CommandFeed(processor, inbox), processor

    def _managers(self) -> tuple[EventFeed, ProcessManager]:
        leases, states = self._leases(MANAGERS_TOPIC), ReadModel(self.log)
        directory = Directory(self.bus, states, _now)

        def epoch_of(partition: int) -> int | None:
            cursor = leases.held.get(partition)
            return None if cursor is None else cursor.epoch

        token = self.engine or nothing
        sender = TaskSender(self.log, self.bus, 0, directory, epoch_of, token)
        watch = Watch(directory, states, sender)
        loop = ProcessManager(Roster(MANAGERS), self.log, sender, leases, 0, _now, watch)
        return EventFeed(MANAGERS_TOPIC, loop, self.log, self.bus, self.beside), loop

    def _projections(self) -> tuple[EventFeed, Projector]:
        carrier = LetterCarrier(self.log, self.bus, self.keys, self.engine)
        leases = self._leases(PROJECTIONS_TOPIC)
        projector = Projector(PROJECTIONS, self.log, leases, 0, carrier=carrier)
        feed = EventFeed(
            PROJECTIONS_TOPIC, projector, self.log, self.bus, pace_s=PROJECTIONS_PACE_S
        )
        return feed, projector

    def app(self) -> App:
        """The Faust app with one agent a feed."""
        app = make_app("agentcore", [feed for feed, _ in self.feeds], self.bus)
        for feed, worker in self.feeds:
            app.agent(feed.topic, name=feed.topic)(_agent(feed, worker))
        return app

    async def close(self) -> None:
        """Let go of the connections, after the app has stopped."""
        await self.bus.close()
        await self.log.close()


def _now() -> float:
    return get_running_loop().time()


def _agent(feed: Any, worker: Any) -> Any:
    async def work(batches: Any) -> None:
        async for batch in batches:
            async with feed.handling:
                await worker.handle(batch.entries)

    return work


def __getattr__(name: str) -> Any:
    """`app`, made when Faust asks for it, so that importing this module touches no settings."""
    if name == "app":
        from processors.cli.logs import configure

        settings = read_settings()
        configure(settings.log_level)  # structlog's own way prints the variables of a traceback
        roles = os.environ.get("AGENTCORE_ROLES", ",".join(ROLES)).split(",")
        return Worker(settings, roles).app()
    raise AttributeError(name)
