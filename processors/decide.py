"""From the entries of a batch to the events of a commit: decode, repeat, refuse, decide, encode.

The only waiting is for what is not in memory yet (states, definitions), once for the whole batch;
then each partition's commands are decided without a pause. How long that is, and how large a commit
becomes, depends on the events: one command may make twenty thousand.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from aggregates.decider import Reference
from aggregates.problem import Refused, bounded
from aggregates.workflow import WorkflowArchived, WorkflowCreated, WorkflowRevised
from processors.access.admission import Admission, not_theirs
from processors.access.principal import Unauthenticated
from processors.access.quotas import BEGINNING_NAMES, COUNTED, Quotas
from processors.blueprints import Blueprints, attach
from processors.decided import Decided, conflict, over_quota, quarantine
from processors.partition_loading import Unreadable, load
from processors.partition_state import REFUSAL, Held, PartitionState, settle_outcomes
from processors.replies import encode_outcome
from processors.sealing import seal_definition, settle
from processors.vocabulary import Vocabulary
from streams.codec import Poison, decode_command, encode_event
from streams.log import DeadLetter, DefinitionRow, Log, Share
from streams.message import Command, Outcome
from streams.partition import commands_key, partition_of
from streams.sealing.keyring import Keyring

TURN = 200  # entries read, or events made: then the other coroutines get a turn
EVENTS_MAX = 10_000  # of one commit: decided in some 100 ms, and a few megabytes

logger = structlog.get_logger(__name__)


CRASHES_MAX = 3
"""So often is a command tried whose events break the state that they are folded into."""
CRASHING_MAX = 1_000  # commands of a partition whose crashes are counted

BESIDE = frozenset({WorkflowCreated, WorkflowRevised, WorkflowArchived})
NOTED = BESIDE | COUNTED

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
    keys: Keyring | None = None,
    admission: Admission | None = None,
    quotas: Quotas | None = None,
) -> list[Decided]:
    """Decide the entries of several partitions; states and heads move ahead at once.

    Where there is an admission, it says whose the commands are and refuses what may not be; where
    there are quotas, what begins something new is within them.

    With EVENTS_MAX events the batch is full: the entries behind, and whole partitions that are not
    among what is returned, are for the next one.
    """
    work: list[tuple[Decided, list[Typed]]] = []
    read = said = 0
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
        if quotas is not None:
            decided.quotas, decided.rated = quotas, quotas.limits.events_per_s is not None
        commands = _read(decided, names, partitions, admission, now)
        if admission is not None and await admission.renewed():
            decided.letters.clear()
            decided.asking.clear()
            commands = _read(decided, names, partitions, admission, now)
        if keys is not None:
            decided.came_clear = await settle(keys, commands)
        if quotas is not None and decided.asking:
            await quotas.ready({one[1].tenant for one in commands if one[0] in decided.asking})
        work.append((decided, commands))
        read += len(entries)
        if read >= TURN:
            read = 0
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
            _decide(decided, one, now, stamp, keys)
            if not part.valid:
                break
        if part.valid:
            part.forget_old()
            part.head, part.number, part.offset = share.last, share.number, share.stream_offset
            room -= len(share.messages)
            done.append(decided)
        said += len(share.messages)
        if said >= TURN:
            said = 0
            await sleep(0)
    return done


def _read(
    decided: Decided,
    names: Vocabulary,
    partitions: int,
    admission: Admission | None,
    now: datetime,
) -> list[Typed]:
    """The commands among the entries; what is none, or nobody's, goes to the dead letters."""
    commands: list[Typed] = []
    refused: Refused | None = None
    seconds = now.timestamp()
    partition, typed_of = decided.share.partition, names.command
    bounded_by, by_engine = decided.quotas, False
    for place, (entry, raw) in enumerate(decided.entries):
        try:
            command = decode_command(raw)
            subject = command.subject
            if (own := partition_of(command.root, partitions)) != partition:
                raise Poison(
                    f"WRONG_PARTITION: {subject} belongs to partition {own};"
                    " whoever cannot compute it publishes to the stream `commands`."
                )
            if admission is not None:
                refused = admission.admit(command, seconds)
                by_engine = admission.by_engine
        except (Poison, Unauthenticated) as error:
            key = commands_key(partition)
            decided.letters.append(DeadLetter("command", key, entry, bounded(str(error)), raw))
            continue
        if refused is not None:
            commands.append((place, command, subject, refused))
            continue
        if bounded_by is not None and command.type in BEGINNING_NAMES:
            if admission is None:  # then what an event has caused counts as the engine's own
                by_engine = command.causation is not None
            if not by_engine:
                decided.asking.add(place)
        try:
            commands.append((place, command, subject, typed_of(command)))
        except Refused as error:
            commands.append((place, command, subject, error))
    return commands


async def _attach(names: Vocabulary, plans: Blueprints, commands: Sequence[Typed]) -> None:
    """Give commands that refer to a workflow its newest known truth."""
    referring: list[tuple[Any, Any, str]] = []
    wanted: set[Reference] = set()
    referring_types = names.referring
    for _, command, _, typed in commands:
        if type(typed) not in referring_types:
            continue
        decider = names.deciders[command.aggregate]
        reference = decider.reference(typed)
        if reference is not None:
            referring.append((decider, typed, command.tenant))
            wanted.add(reference)
    if wanted:
        found = await plans.find(wanted, fresh=True)
        for decider, typed, tenant in referring:
            attach(decider, typed, found)
            blueprint = typed._blueprint
            if blueprint is not None and blueprint.tenant != tenant:
                typed._blueprint = None  # I14: of another tenant's workflows nobody hears anything


def _decide(decided: Decided, one: Typed, now: datetime, stamp: str, keys: Keyring | None) -> None:
    """One command: a repeat, a refusal, or events; always an outcome.

    All events are encoded before the first one counts: one that cannot be leaves none of them.
    """
    part, share = decided.part, decided.share
    place, command, subject, typed = one
    # What came in clear was sealed: its digest would tell of it, and is not kept.
    digest = None if place in decided.came_clear else command.digest
    if command.id in part.outcomes:
        _repeat(decided, place, command, digest)
        return
    held = part.held.get(subject)
    first = share.head + len(share.messages) + 1
    problem = None
    try:
        if isinstance(typed, Refused):
            raise typed
        assert held is not None
        if held.tenant != command.tenant and held.tenant:
            raise Refused("FOREIGN_TENANT", f"{subject} is not of the tenant {command.tenant}.")
        if held.unreadable:
            raise Unreadable(held.unreadable)
        if command.task_roles is not None and (
            foreign := not_theirs(held.state, typed, command.task_roles)
        ):
            raise foreign
        if command.expected is not None and command.expected != held.version:
            detail = f"{subject} is at version {held.version:,}, not {command.expected:,}."
            raise Refused("VERSION_CONFLICT", detail, version=held.version)
        if place in decided.asking and (quotas := decided.quotas) is not None:
            over = quotas.over(command.tenant, typed, held)
            if over is not None:
                over_quota(decided, place, command, over)
                return
        events = held.decider.decide(held.state, typed, now)
        partition, version, messages = share.partition, held.version, []
        for ahead, event in enumerate(events):
            name = type(event).__name__
            at = first + ahead
            version += 1
            messages.append(
                encode_event(partition, at, name, subject, version, stamp, command, event)
            )
    except Refused as error:
        problem = error.problem()
        decided.refusals += 1
        _refuse(share, held, command, subject, problem, stamp)
    except Exception as error:  # a bug in a decision costs this command, and nobody else
        logger.exception("decision_crashed", command=command.type, subject=subject)
        quarantine(decided, place, command, error)
        return
    else:
        if not _record(decided, place, command, subject, events, messages, keys):
            return
    last = share.head + len(share.messages)
    outcome = Outcome(command.id, share.partition, first, last, problem, False, digest)
    made = last - first + 1
    share.commands.append((command.id, made) if digest is None else (command.id, made, digest))
    part.remember(outcome)
    if command.reply_to:
        decided.replies.append((command.reply_to, encode_outcome(outcome)))


def _repeat(decided: Decided, place: int, command: Command, digest: int | None) -> None:
    """A command whose id was handled before: its first outcome again, or a conflict."""
    known = decided.part.outcomes[command.id]
    if known.digest != digest and None not in (known.digest, digest):
        conflict(decided, place, command)
        return
    decided.repeats += 1
    if command.reply_to:
        decided.replies.append((command.reply_to, encode_outcome(known, repeated=True)))


def _record(
    decided: Decided,
    place: int,
    command: Command,
    subject: str,
    events: list[Any],
    messages: list[bytes],
    keys: Keyring | None,
) -> bool:
    """Take the events into the share and the state; False where that breaks the state.

    Then all of the partition's memory is dropped and read again. A command that breaks it every
    time is put aside before it can do so once more.
    """
    part, share, held = decided.part, decided.share, decided.part.held[subject]
    if part.crashes and part.crashes.get(command.id, 0) >= CRASHES_MAX:
        del part.crashes[command.id]
        reason = RuntimeError(f"its events broke the state, {CRASHES_MAX} times")
        quarantine(decided, place, command, reason)
        return False
    evolve = held.decider.evolve
    before = getattr(held.state, "status", None)
    try:
        for event in events:
            held.state = evolve(held.state, event)
    except Exception:
        logger.exception("state_broken", command=command.type, subject=subject)
        if len(part.crashes) >= CRASHING_MAX:
            part.crashes.clear()
        part.crashes[command.id] = part.crashes.get(command.id, 0) + 1
        part.valid = False
        return False
    if not events:
        return True
    for event in events:
        kind = type(event)
        share.types.append(kind.__name__)
        share.subjects.append(subject)
        if kind in NOTED:
            if kind in BESIDE:
                _keep_beside(share, command, event, keys)
            elif decided.quotas is not None:
                at = share.head + len(share.subjects)
                decided.quotas.note(share.partition, at, command.tenant, event, before)
    if decided.rated and decided.quotas is not None:
        decided.quotas.made(command.tenant, len(events))
    share.messages += messages
    held.version, held.changed = held.version + len(events), True
    held.tenant = held.tenant or command.tenant
    return True


def _refuse(
    share: Share,
    held: Held | None,
    command: Command,
    subject: str,
    problem: dict[str, Any],
    stamp: str,
) -> None:
    """The attempt as an event: the audit trail has those too."""
    said = {"command_type": command.type, "command_id": command.id, **problem}
    version = 0
    if held is not None:
        version = held.version
        if held.tenant != command.tenant and held.tenant:
            # It is in the trail of whoever was attacked; what lies under one id is one tenant's.
            said["command_tenant"] = command.tenant
            command = command.but(tenant=held.tenant)
    message = encode_event(
        share.partition, share.last + 1, REFUSAL, subject, version, stamp, command, said
    )
    _append(share, REFUSAL, subject, message)


def _keep_beside(share: Share, command: Command, event: Any, keys: Keyring | None) -> None:
    """What a workflow's events keep in the table of definitions, in the same commit."""
    if isinstance(event, WorkflowArchived):
        share.archived.append(command.root)
        return
    body = seal_definition(keys, command.tenant, command.root, event._definition)
    share.definitions.append(
        DefinitionRow(command.root, event.revision, command.tenant, event.digest, False, body)
    )


def _append(share: Share, event_type: str, subject: str, message: bytes) -> None:
    share.types.append(event_type)
    share.subjects.append(subject)
    share.messages.append(message)
