"""From the entries of a batch to the events of a commit: decode, repeat, refuse, decide, encode.

The only waiting is for what is not in memory yet (states, definitions), once for the whole batch;
then each partition's commands are decided without a pause. How long that is, and how large a commit
becomes, depends on the events: one command may make twenty thousand.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from aggregates.decider import Reference
from aggregates.problem import Refused, bounded
from aggregates.workflow import WorkflowArchived, WorkflowCreated, WorkflowRevised
from processors.blueprints import Blueprints, attach
from processors.partition_state import REFUSAL, Held, PartitionState, load, settle_outcomes
from processors.replies import encode_outcome
from processors.vocabulary import Vocabulary
from streams.codec import Poison, decode_command, encode_event
from streams.log import DeadLetter, DefinitionRow, Log, Share
from streams.message import Command, Outcome
from streams.partition import commands_key, partition_of

EVENTS_MAX = 10_000  # of one commit: decided in some 100 ms, and a few megabytes

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Decided:
    """What one partition's entries came to: a share of the commit, and what to say afterwards."""

    part: PartitionState
    share: Share
    entries: Sequence[tuple[str, bytes]]
    replies: list[tuple[str, bytes]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    needed: dict[str, Held] = field(default_factory=dict)
    repeats: int = 0
    refusals: int = 0

    def end_before(self, place: int) -> None:
        """The entry at this place and those behind it are for the next batch."""
        self.entries = self.entries[:place]
        self.share.stream_offset = self.entries[-1][0]
        kept = {entry for entry, _ in self.entries}
        self.letters = [letter for letter in self.letters if letter.entry in kept]


BESIDE = frozenset({WorkflowCreated, WorkflowRevised, WorkflowArchived})

Typed = tuple[int, Command, str, Any]
"""A command with its place among the entries, its subject, and its typed data or what refused it.
"""


async def decide_batch(
    log: Log,
    names: Vocabulary,
    plans: Blueprints,
    batches: Sequence[tuple[PartitionState, Sequence[tuple[str, bytes]]]],
    now: datetime,
    partitions: int,
) -> list[Decided]:
    """Decide the entries of several partitions; states and heads move ahead at once.

    With EVENTS_MAX events the batch is full: the entries behind, and whole partitions that are not
    among what is returned, are for the next one.
    """
    work: list[tuple[Decided, list[Typed]]] = []
    for part, entries in batches:
        share = Share(
            part.partition,
            part.cursor.epoch,
            part.head,
            part.number + 1,
            b"",
            stream_offset=entries[-1][0],
            incarnation=part.cursor.incarnation,
        )
        decided = Decided(part, share, entries)
        work.append((decided, _read(decided, names, partitions)))
        await sleep(0)  # so that a large batch does not keep the leases' beats waiting
    for decided, commands in work:
        part = decided.part
        if part.unsure:
            await settle_outcomes(log, part, [command.id for _, command, _, _ in commands])
        known = part.outcomes
        subjects = {subject for _, command, subject, _ in commands if command.id not in known}
        await load(log, part, names, plans, subjects)
        decided.needed = {s: part.held[s] for s in subjects if s in part.held}
    await _attach(names, plans, [one for _, commands in work for one in commands])
    stamp = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    done: list[Decided] = []
    room = EVENTS_MAX
    for decided, commands in work:
        if room <= 0:
            break
        part, share = decided.part, decided.share
        # A snapshot that ended meanwhile may have made room: what was loaded for us is needed now.
        part.held.update(decided.needed)
        for one in commands:
            if len(share.messages) >= room:
                decided.end_before(one[0])
                break
            _decide(decided, one, now, stamp)
        part.head, part.number, part.offset = share.last, share.number, share.stream_offset
        room -= len(share.messages)
        done.append(decided)
        await sleep(0)
    return done


def _read(decided: Decided, names: Vocabulary, partitions: int) -> list[Typed]:
    """The commands among the entries; what is none goes to the dead letters."""
    commands: list[Typed] = []
    partition = decided.share.partition
    for place, (entry, raw) in enumerate(decided.entries):
        try:
            command = decode_command(raw)
            subject = command.subject
            own = partition_of(command.root, partitions)
            if own != partition:
                raise Poison(
                    f"WRONG_PARTITION: {subject} belongs to partition {own};"
                    " whoever cannot compute it publishes to the stream `commands`."
                )
        except Poison as error:
            key = commands_key(partition)
            decided.letters.append(DeadLetter("command", key, entry, bounded(str(error)), raw))
            continue
        try:
            commands.append((place, command, subject, names.command(command)))
        except Refused as error:
            commands.append((place, command, subject, error))
    return commands


async def _attach(names: Vocabulary, plans: Blueprints, commands: Sequence[Typed]) -> None:
    """Give commands that refer to a workflow its newest known truth."""
    referring: list[tuple[Any, Any]] = []
    wanted: set[Reference] = set()
    referring_types = names.referring
    for _, command, _, typed in commands:
        if type(typed) not in referring_types:
            continue
        decider = names.deciders[command.aggregate]
        reference = decider.reference(typed)
        if reference is not None:
            referring.append((decider, typed))
            wanted.add(reference)
    if wanted:
        found = await plans.find(wanted, fresh=True)
        for decider, typed in referring:
            attach(decider, typed, found)


def _decide(decided: Decided, one: Typed, now: datetime, stamp: str) -> None:
    """One command: a repeat, a refusal, or events; always an outcome."""
    part, share = decided.part, decided.share
    _, command, subject, typed = one
    known = part.outcomes.get(command.id)
    if known is not None:
        decided.repeats += 1
        if command.reply_to:
            decided.replies.append((command.reply_to, encode_outcome(known, repeated=True)))
        return
    held = part.held.get(subject)
    first = share.last + 1
    problem = None
    try:
        if isinstance(typed, Refused):
            raise typed
        assert held is not None
        events = held.decider.decide(held.state, typed, now)
        _record(share, held, command, subject, events, stamp)
    except Refused as error:
        problem = error.problem()
    except Exception as error:  # a bug in a decision costs this command, and nobody else
        logger.exception("decision_crashed", command=command.type, subject=subject)
        problem = Refused("INTERNAL", f"{command.type} crashed: {type(error).__name__}").problem()
    if problem is not None:
        decided.refusals += 1
        said = {"command_type": command.type, "command_id": command.id, **problem}
        version = held.version if held else 0
        _append(
            share,
            REFUSAL,
            subject,
            encode_event(share.partition, first, REFUSAL, subject, version, stamp, command, said),
        )
    last = share.last
    outcome = Outcome(command.id, share.partition, first, last, problem)
    share.commands.append((command.id, last - first + 1))
    part.remember(outcome)
    if command.reply_to:
        decided.replies.append((command.reply_to, encode_outcome(outcome)))


def _record(
    share: Share, held: Held, command: Command, subject: str, events: list[Any], stamp: str
) -> None:
    decider, version = held.decider, held.version
    # All are encoded before the first one counts: one that cannot be leaves none of the others.
    messages = [
        encode_event(
            share.partition,
            share.last + place,
            type(event).__name__,
            subject,
            version + place,
            stamp,
            command,
            event,
        )
        for place, event in enumerate(events, 1)
    ]
    for event, message in zip(events, messages, strict=True):
        _append(share, type(event).__name__, subject, message)
        held.state = decider.evolve(held.state, event)
        if type(event) in BESIDE:
            _keep_beside(share, command, event)
    if events:
        held.version, held.changed = version + len(events), True


def _keep_beside(share: Share, command: Command, event: Any) -> None:
    """What a workflow's events keep in the table of definitions, in the same commit."""
    if isinstance(event, WorkflowArchived):
        share.archived.append(command.root)
        return
    body = event._definition.to_bytes()
    share.definitions.append(
        DefinitionRow(command.root, event.revision, command.tenant, event.digest, False, body)
    )


def _append(share: Share, event_type: str, subject: str, message: bytes) -> None:
    share.types.append(event_type)
    share.subjects.append(subject)
    share.messages.append(message)
