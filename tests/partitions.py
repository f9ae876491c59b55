"""One partition and its owner, without Redis: give commands, commit them, take it anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from aggregates import DECIDERS
from aggregates.decider import Decider
from processors import commands, partition_loading
from processors.access.admission import Admission
from processors.access.quotas import Quotas
from processors.blueprints import Blueprints
from processors.decide import decide_batch
from processors.decided import Decided
from processors.partition_state import PartitionState, open_partition
from processors.replies import decode_outcome
from processors.vocabulary import Vocabulary
from streams.codec import decode_event, encode_command
from streams.log import WRITER
from streams.logs.memory import MemoryLog
from streams.message import Command, Event, Outcome
from streams.partition import partition_of
from tests.flows import document

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FLOW = document({"a": [], "b": ["a"]})


class Owner:
    """Owns partition `number` of a log and decides for it, one commit a batch."""

    def __init__(
        self,
        log: MemoryLog | None = None,
        number: int = 0,
        partitions: int = 1,
        deciders: Sequence[Decider[Any]] = DECIDERS,
    ) -> None:
        self.log = log or MemoryLog(partitions)
        self.number, self.partitions = number, partitions
        self.names = Vocabulary(deciders)
        self.plans = Blueprints(self.log)
        self.part: PartitionState = None  # type: ignore[assignment]
        self.entries = 0
        self.admission: Admission | None = None
        self.quotas: Quotas | None = None

    async def take(self) -> Owner:
        """Take the partition under a new epoch and read it from the log, as after a restart."""
        seen = (await self.log.cursors(WRITER))[self.number]
        [cursor] = await self.log.take([seen], "me")
        self.plans = Blueprints(self.log)
        self.part = await open_partition(self.log, cursor)
        return self

    async def decide(self, *said: Command | bytes) -> Decided:
        """Decide a batch; nothing is committed yet."""
        batch = []
        for one in said:
            self.entries += 1
            raw = one if isinstance(one, bytes) else encode_command(one)
            batch.append((f"{self.entries}-0", raw))
        [decided] = await decide_batch(
            self.log,
            self.names,
            self.plans,
            [(self.part, batch)],
            NOW,
            self.partitions,
            admission=self.admission,
            quotas=self.quotas,
        )
        return decided

    async def commit(self, decided: Decided) -> list[Outcome]:
        """Commit what was decided; returns what would be told to whoever asked."""
        decided.share.previous = self.part.chain
        await self.log.bury(decided.letters)
        assert await self.log.append([decided.share], NOW) == {self.number}
        self.part.chain = decided.share.hash
        self.part.cursor.position = decided.share.last
        return [decode_outcome(raw) for _, raw in decided.replies]

    async def say(self, *said: Command | bytes) -> list[Outcome]:
        """Decide and commit a batch."""
        return await self.commit(await self.decide(*said))

    async def save(self) -> None:
        """Save a snapshot of everything that changed, and forget what is too much."""
        rows = await partition_loading.snapshot(self.log, self.part, self.names, self.plans)
        assert await self.log.save(self.part.cursor, self.part.head, rows)
        self.part.snapshot = self.part.head
        partition_loading.evict(self.part)

    async def events(self) -> list[Event]:
        """All that is stored in the partition."""
        stored = await self.log.read(self.number, 0, 10_000)
        return [decode_event(one.message) for one in stored]

    async def state(self, subject: str) -> Any:
        """The state of one aggregate, loaded if need be, as data."""
        await partition_loading.load(self.log, self.part, self.names, self.plans, [subject])
        held = self.part.held[subject]
        return held.version, held.decider.dump(held.state)


def here(name: str, number: int, partitions: int) -> str:
    """An id like `name` that belongs to a partition."""
    tried = (f"{name}-{n}" for n in range(100_000))
    return next(one for one in tried if partition_of(one, partitions) == number)


def asking(command: Command) -> Command:
    """The same command, whose outcome somebody waits for."""
    command.reply_to = "replies:me"
    return command


def create(workflow_id: str = "w", definition: Any = FLOW) -> Command:
    return asking(commands.create_workflow(definition=definition, workflow_id=workflow_id))


def start(execution_id: str = "e", workflow_id: str = "w", revision: int = 0) -> Command:
    return asking(
        commands.start_execution(workflow_id, revision=revision, execution_id=execution_id)
    )


def answer(kind: str, task: str, attempt: int = 1, execution_id: str = "e", **said: Any) -> Command:
    data = {"task": task, "attempt": attempt, "agent": "ann", **said}
    return asking(commands.command("execution", execution_id, kind, data))


def told(outcome: Outcome) -> Outcome:
    """An outcome without whether it was said before."""
    return replace(outcome, repeated=False)
