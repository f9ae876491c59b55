"""A worker's metrics for Prometheus: what its loops have counted, and how its partitions stand.

Nothing is counted here. The loops' own counters are read when somebody asks, so the hot path has no
part in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from processors.command_processor import CommandProcessor
from processors.event_feed import EventFeed
from processors.process_manager import ProcessManager
from processors.standings import Standings, standings
from streams.log import LogUnavailable

if TYPE_CHECKING:
    from processors.app import Worker

PREFIX = "agentcore"
NOT_COUNTED = {"partitions"}  # a number of ours that counts nothing
STANDINGS_S = 1.0  # asked more often than this, the same standings are shown again
STANDINGS_S_MAX = 2.0  # a database that is away must not hang the scrape

GAUGES = {
    "owner": "1 where this worker owns the partition",
    "epoch": "the epoch of the partition's lease",
    "head": "position of the partition's newest event",
    "position": "position that the consumer has handled",
    "lag": "events that the consumer has not handled yet",
}

logger = structlog.get_logger(__name__)


class WorkerMetrics(Collector):
    """What one worker tells; `ready` says whether it can work."""

    def __init__(self, worker: Worker, ready: Callable[[], bool]) -> None:
        self.worker = worker
        self.ready = ready
        self._standings: Standings | None = None
        self._asked = 0.0
        self._asking = asyncio.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        async with self._asking:
            if monotonic() - self._asked >= STANDINGS_S:
                await self._look()
                self._asked = monotonic()
        return generate_latest(self._registry)

    async def _look(self) -> None:
        topics = [feed.topic for feed, _ in self.worker.feeds]
        try:
            async with asyncio.timeout(STANDINGS_S_MAX):
                self._standings = await standings(self.worker.log, topics)
        except (LogUnavailable, TimeoutError) as error:
            self._standings = None
            logger.warning("standings_unavailable", error=str(error))

    def collect(self) -> Iterator[Metric]:
        """Counters and gauges as they are now."""
        families: dict[str, CounterMetricFamily] = {}
        for consumer, name, value in counted(self.worker.feeds):
            told = f"{name.replace('_', ' ')}, since the worker started"
            family = families.setdefault(
                name, CounterMetricFamily(f"{PREFIX}_{name}", told, labels=["consumer"])
            )
            family.add_metric([consumer], value)
        yield from families.values()
        yield self._gauge("ready", "1 while the worker can work", self.ready())
        yield self._gauge(
            "postgres_up", "1 where the standings could be read", self._standings is not None
        )
        if self._standings is not None:
            yield from self._of_partitions(self._standings)

    @staticmethod
    def _gauge(name: str, told: str, value: bool) -> Metric:
        return GaugeMetricFamily(f"{PREFIX}_{name}", told, value=float(value))

    def _of_partitions(self, now: Standings) -> Iterator[Metric]:
        for name, told in GAUGES.items():
            family = GaugeMetricFamily(
                f"{PREFIX}_partition_{name}", told, labels=["consumer", "partition"]
            )
            for one in now.partitions:
                ours = one.owner == self.worker.name
                value = ours if name == "owner" else getattr(one, name)
                family.add_metric([one.consumer, str(one.partition)], value)
            yield family
        members = GaugeMetricFamily(
            f"{PREFIX}_members", "workers that share the consumer's partitions", labels=["consumer"]
        )
        for feed, _ in self.worker.feeds:
            members.add_metric(
                [feed.topic], sum(consumer == feed.topic for consumer, _ in now.members)
            )
        yield members


def counted(feeds: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, str, int]]:
    """(consumer, name, value) of everything that the loops of these feeds count."""
    for feed, part in feeds:
        sources: list[tuple[str, Any]] = [("leases_", part.leases.counters)]
        if isinstance(part, CommandProcessor):
            sources += [("", part.counters), ("mirror_", part.mirroring)]
        else:
            sources.append(("handled_", part))
        if isinstance(part, ProcessManager):
            sources.append(("tasks_", part.sender))
        for prefix, source in sources:
            for name, value in numbers(source):
                yield feed.topic, f"{prefix}{name}", value
        if isinstance(feed, EventFeed):
            yield feed.topic, "gap_fallbacks", feed.tail.gaps


def numbers(source: Any) -> Iterator[tuple[str, int]]:
    """The public integer fields of a dataclass."""
    for field in fields(source):
        private = field.name.startswith("_") or field.name in NOT_COUNTED
        if field.type == "int" and not private:
            yield field.name, getattr(source, field.name)
