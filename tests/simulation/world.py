"""One simulated run: workers, agents and clients, what goes wrong, and what is true afterwards."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from streams.logs.memory import MemoryLog
from streams.partition import events_key, partition_of
from tests.chaos.checker import Facts
from tests.chaos.checker_executions import violations
from tests.simulation import loop as simulation
from tests.simulation.agents import Agents
from tests.simulation.clients import Clients
from tests.simulation.flows import SIGNALS, workflow
from tests.simulation.loop import SimLoop
from tests.simulation.servers import Redis, Weather
from tests.simulation.workers import LEASE_S, Worker

PARTITIONS = 3
WORKERS = 2
EXECUTIONS = 4
FAULTS_S = 10.0  # so long anything may happen
QUIET_S = 400.0  # and then, so long everything may take to end
CONVERGE_LOOK_S = 0.5

MOMENTS = tuple(
    f"{role}: {moment}"
    for role, moments in (
        (
            "commands",
            (
                *("before append", "after append", "before mirror", "in the middle of mirror"),
                *(
                    "after mirror",
                    "before read",
                    "after take",
                    "before recent",
                    "after definitions",
                ),
            ),
        ),
        (
            "managers",
            ("before append", "after append", "before advance", "after advance", "before load"),
        ),
    )
    for moment in moments
)
"""Where a process may die or fall asleep. Of `commands`, append is the commit or a reply."""

ENDS = ("ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled")


@dataclass
class Result:
    """What a run came to."""

    seed: int
    violations: list[str]
    seen: Counter[str]
    history: int
    ended: Counter[str]
    virtual_s: float
    steps: int


@dataclass
class World:
    """The servers, and everybody who uses them."""

    seed: int
    loop: SimLoop
    change: Callable[[World], None] = lambda world: None
    chance: random.Random = field(init=False)
    workers: dict[str, Worker] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    armed: dict[str, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    epochs: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"world {self.seed}")
        self.log = MemoryLog(PARTITIONS)
        self.redis = Redis(self.loop)
        self.weather = Weather(random.Random(f"weather {self.seed}"), strike=self.strike)
        self.agents = Agents(self.redis, self.weather, self.seed)
        self.clients = Clients(self.redis, self.weather, self.chance, PARTITIONS)
        self.born = 0
        self.change(self)

    # Processes ----------------------------------------------------------------------------------

    def begin_worker(self) -> None:
        """Another process."""
        self.born += 1
        name = f"worker-{self.born}"

        def start() -> None:
            worker = self.workers[name] = Worker(name, self.log, self.redis, self.weather)
            worker.start()

        self.loop.run_as(name, start)

    def living(self) -> list[str]:
        """The workers that run."""
        return [name for name in self.workers if not self.loop.asleep(name)]

    def strike(self, process: str, moment: str) -> bool:
        """Whether whoever is at this moment dies of it, or falls asleep."""
        how = self.armed.pop(moment, None)
        if how is None or self.loop.asleep(process):
            return False
        self.seen[f"{how} at {moment}"] += 1
        self.kill(process) if how == "died" else self.freeze(process)
        return True

    def kill(self, process: str) -> None:
        """It ends in the middle of whatever it does; another one begins after a while."""
        self.loop.sleep(process)
        self.seen["killed"] += 1
        self._later(self.chance.uniform(0.05, 2.0), self.begin_worker)

    def freeze(self, process: str) -> None:
        """It stands still for longer than its leases last, and then goes on."""
        self.loop.sleep(process)
        self.seen["frozen"] += 1
        self._later(self.chance.uniform(1.2, 3.0) * LEASE_S, lambda: self.loop.wake(process))

    def _later(self, delay_s: float, call: Callable[[], Any]) -> None:
        self.loop.run_as("world", lambda: self.loop.call_later(delay_s, call))

    # The story ----------------------------------------------------------------------------------

    async def live(self) -> Result:
        """The whole run."""
        helpers = [
            asyncio.create_task(self.agents.run(), name="agents"),
            asyncio.create_task(self.clients.listen(), name="replies"),
        ]
        for _ in range(WORKERS):
            self.begin_worker()
        nemesis = asyncio.create_task(self._nemesis(), name="nemesis")
        stories = [
            asyncio.create_task(self._story(n), name=f"story {n}") for n in range(EXECUTIONS)
        ]
        await asyncio.sleep(FAULTS_S)
        nemesis.cancel()
        self._calm()
        stuck = await self._converge(stories)
        for helper in (*helpers, *stories):
            helper.cancel()
        facts = self.facts()
        wrong = [*stuck, *violations(facts)]
        for worker in self.workers.values():
            wrong += [f"{worker.name} crashed: {crash!r}" for crash in worker.crashes]
        self._count()
        ended = Counter(events[-1]["type"] for events in facts.executions.values() if events)
        return Result(
            self.seed, wrong, self.seen, self.loop.history, ended, self.loop.now, self.loop.steps
        )

    async def _story(self, number: int) -> None:
        """One workflow and its execution, and what people do to it meanwhile."""
        chance = random.Random(f"{self.seed} story {number}")
        name, root = f"flow-{self.seed}-{number}", f"run-{self.seed}-{number}"
        await asyncio.sleep(chance.random() * FAULTS_S / 2)
        await self.clients.call("CreateWorkflow", "workflow", name, definition=workflow(chance))
        self.executions[root] = name
        options = {"timeout_seconds": 30.0} if chance.random() < 0.2 else {}
        await self.clients.call(
            "StartExecution", "execution", root, workflow_id=name, input={"n": number}, **options
        )
        while not self._ended(root):
            await asyncio.sleep(chance.random() * 2)
            match chance.randrange(24):
                case 0:
                    await self.clients.call("PauseExecution", "execution", root)
                    await self.clients.call("ResumeExecution", "execution", root)
                case 1 if chance.random() < 0.3:
                    await self.clients.call("CancelExecution", "execution", root, reason="enough")
                case 2:
                    await self.clients.call("CompleteTask", "execution", root, task="t0",
                                            attempt=9, agent="nobody")  # fmt: skip
                case 3 if chance.random() < 0.5:
                    await self.clients.call("RetryExecution", "execution", root)
            await self._help(root)

    async def _help(self, root: str) -> None:
        """Somebody answers what is asked, and sends the signals that are waited for."""
        asked: dict[str, bool] = {}
        signals = set()
        for event in self._events(root):
            if event["type"] == "InputRequested":
                asked[event["data"]["task"]] = True
            elif event["type"] in ("InputProvided", "TaskCancelled"):
                asked[event["data"]["task"]] = False
            elif event["type"] == "SignalReceived":
                signals.add(event["data"]["name"])
        for task, waits in asked.items():
            if waits:
                await self.clients.call("ProvideInput", "execution", root, task=task, input="well")
        for name in SIGNALS:
            if name not in signals:
                await self.clients.call("SignalExecution", "execution", root, name=name)

    # What goes wrong ----------------------------------------------------------------------------

    async def _nemesis(self) -> None:
        deeds = (
            (self._arm, 12), (self._kill, 2), (self._freeze, 3), (self._flush, 2),
            (self._lose_bus, 2), (self._lose_log, 2), (self._trim, 6), (self._lose_commands, 1),
            (self._move, 1),
        )  # fmt: skip
        some, weights = zip(*deeds, strict=True)
        while True:
            await asyncio.sleep(self.chance.uniform(0.05, 0.8))
            await self.chance.choices(some, weights)[0]()
            await self._look()

    async def _look(self) -> None:
        for cursor in await self.log.cursors("commands"):
            self.epochs.append((cursor.partition, cursor.epoch, cursor.commits))

    async def _arm(self) -> None:
        how = self.chance.choice(("died", "slept"))
        self.armed[self.chance.choice(MOMENTS)] = how

    async def _kill(self) -> None:
        if living := self.living():
            self.kill(self.chance.choice(living))

    async def _freeze(self) -> None:
        if living := self.living():
            self.freeze(self.chance.choice(living))

    async def _move(self) -> None:
        """A worker stops in order, and another one begins."""
        if living := self.living():
            name = self.chance.choice(living)
            worker = self.workers[name]
            self.seen["stopped in order"] += 1
            self.loop.run_as(name, lambda: asyncio.create_task(worker.stop(), name=f"{name} stops"))
            self._later(self.chance.uniform(0.0, 1.0), self.begin_worker)

    async def _flush(self) -> None:
        self.seen["flushed"] += 1
        if self.chance.random() < 0.3:
            self.redis.turn_back()
        else:
            self.redis.flush()

    async def _lose_bus(self) -> None:
        self.weather.bus_away = True
        await asyncio.sleep(self.chance.uniform(0.1, 3.0))
        self.weather.bus_away = False

    async def _lose_log(self) -> None:
        self.weather.log_away = True
        await asyncio.sleep(self.chance.uniform(0.1, 3.0))
        self.weather.log_away = False

    async def _trim(self) -> None:
        """The mirror loses its beginning, or all of it."""
        key = events_key(self.chance.randrange(PARTITIONS))
        ids = self.redis.ids(key)
        self.seen["mirror lost entries"] += bool(ids)
        lost = self.chance.randint(0, len(ids))
        if lost == len(ids):
            self.redis.delete(key)
        else:
            self.redis.lose(key, ids[:lost])

    async def _lose_commands(self) -> None:
        """Entries that Redis had acknowledged are gone, as after a failover."""
        for key in [key for key in self.redis._streams if key.startswith("commands:")]:
            ids = self.redis.ids(key)
            self.redis.lose(key, self.chance.sample(ids, len(ids) // 2))

    # Afterwards ---------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Nothing goes wrong any more; whoever slept wakes."""
        self.weather.on = self.weather.log_away = self.weather.bus_away = False
        self.armed.clear()

    async def _converge(self, stories: list[asyncio.Task[None]]) -> list[str]:
        until = self.loop.now + QUIET_S
        if not self.living():
            self.begin_worker()
        while not all(story.done() for story in stories):
            if self.loop.now > until:
                open_ = [root for root in self.executions if not self._ended(root)]
                return [f"I15 converges: {open_} have not ended {QUIET_S:g} s after the last fault"]
            await asyncio.sleep(CONVERGE_LOOK_S)
        for story in stories:
            story.result()
        while not self._mirrored():  # late answers may still come
            if self.loop.now > until:
                return [f"I11 mirror-caught-up: it has not, {QUIET_S:g} s after the last fault"]
            await asyncio.sleep(CONVERGE_LOOK_S)
        return []

    def _mirrored(self) -> bool:
        """Whether each mirror ends where its log does."""
        ends = {p: (self.redis.ids(events_key(p)) or ["0-0"])[-1] for p in range(PARTITIONS)}
        return all(ends[p] == f"{len(self.log._events[p])}-0" for p in range(PARTITIONS))

    def _events(self, root: str) -> list[dict[str, Any]]:
        partition = partition_of(root, PARTITIONS)
        return [
            json.loads(stored.message)
            for stored in self.log._events[partition]
            if stored.subject == f"execution/{root}"
        ]

    def _ended(self, root: str) -> bool:
        last = [e["type"] for e in self._events(root) if e["type"] in (*ENDS, "ExecutionRetried")]
        return bool(last) and last[-1] in ENDS

    def facts(self) -> Facts:
        """What the checker wants to know."""
        log, parts = self.log, range(PARTITIONS)
        events = {
            p: [
                json.loads(stored.message)
                | {
                    "_partition": p,
                    "_position": stored.position,
                    "_type": stored.type,
                    "_subject": stored.subject,
                }
                for stored in log._events[p]
            ]
            for p in parts
        }
        commits = {
            p: [
                row._asdict() | {"first_position": row.first, "last_position": row.last}
                for row in log._commits[p]
            ]
            for p in parts
        }
        return Facts(
            PARTITIONS,
            events,
            {p: [stored.message for stored in log._events[p]] for p in parts},
            commits,
            [asdict(cursor) for cursor in log._cursors.values()],
            [letter._asdict() for letter in log.dead_letters.values()],
            {key: json.loads(row.body) for key, row in log._definitions.items()},
            {
                p: list(
                    zip(
                        self.redis.ids(events_key(p)),
                        self.redis.messages(events_key(p)),
                        strict=True,
                    )
                )
                for p in parts
            },
            self.clients.sent,
            self.clients.acks,
            self.epochs,
        )

    def _count(self) -> None:
        for worker in self.workers.values():
            counters = worker.processor.counters
            self.seen["fenced"] += counters.fenced
            self.seen["duplicates"] += counters.repeats
            self.seen["unknown commits"] += counters.unknown_commits
            self.seen["gap fall-backs"] += worker.event_feed.tail.gaps
            self.seen["asked again"] += worker.sender.asked_again
            mirroring = worker.processor.mirroring
            self.seen["mirrored again"] += mirroring.already_there + mirroring.caught_up
            for _, part in worker.feeds:
                self.seen["taken over"] += part.leases.counters.taken_over
        self.seen += self.weather.seen + self.agents.seen
        for event in (e for events in self.facts().events.values() for e in events):
            if event["type"] == "CommandRejected":
                self.seen[f"refused {event['data']['code']}"] += 1
            elif event["type"] in ("TaskTimedOut", "TaskTakenOver", "CompensationParked",
                                   "ExecutionRetried", "InputProvided"):  # fmt: skip
                self.seen[event["type"]] += 1


def simulate(seed: int, change: Callable[[World], None] = lambda world: None) -> Result:
    """One run from a seed; `change` may break something before it begins."""
    with structlog.testing.capture_logs():

        async def main(loop: SimLoop) -> Result:
            return await World(seed, loop, change).live()

        result: Result = simulation.run(seed, main)
    return result
