"""What was decided for one partition in one batch, and what was put aside instead of decided."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from aggregates.problem import Refused
from processors.access.quotas import Quotas
from processors.partition_loading import Unreadable
from processors.partition_state import Held, PartitionState
from processors.replies import encode_outcome
from streams.codec import Poison, decode_command
from streams.log import DeadLetter, Share
from streams.message import Command, Outcome
from streams.partition import commands_key


@dataclass(slots=True)
class Decided:
    """What one partition's entries came to: a share of the commit, and what to say afterwards."""

    part: PartitionState
    share: Share
    entries: Sequence[tuple[str, bytes]]
    replies: list[tuple[str, bytes]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    needed: dict[str, Held] = field(default_factory=dict)
    came_clear: Collection[int] = ()
    """The places of commands whose payloads were sealed only here."""
    quotas: Quotas | None = None
    rated: bool = False
    """Whether they bound events a second."""
    asking: set[int] = field(default_factory=set)
    """The places of commands that are bounded by quotas."""
    repeats: int = 0
    refusals: int = 0
    conflicts: int = 0

    def end_before(self, place: int) -> None:
        """The entry at this place and those behind it are for the next batch."""
        left = {entry for entry, _ in self.entries[place:]}
        self.entries = self.entries[:place]
        self.share.stream_offset = self.entries[-1][0]
        self.letters = [letter for letter in self.letters if letter.entry not in left]


def conflict(decided: Decided, place: int, command: Command) -> None:
    """The id is taken by a command that said something else.

    The log has the first one only. This one is answered, and kept once an id among the dead
    letters: a storm of them fills nothing.
    """
    decided.conflicts += 1
    detail = f"The id {command.id} is that of another command; give this one an id of its own."
    problem = Refused("CONFLICT", detail)
    if command.id not in decided.part.conflicts:
        decided.part.conflicts.add(command.id)
        _put_aside(decided, place, command, f"conflict/{command.id}", str(problem))
    _answer(decided, command, problem)


def quarantine(decided: Decided, place: int, command: Command, error: Exception) -> None:
    """What crashes is no decision: its bytes are kept, to be tried again by a better version."""
    code = "UNREADABLE" if isinstance(error, Unreadable) else "INTERNAL"
    why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
    problem = Refused(code, f"{command.type} is kept as a dead letter: {why}")
    _put_aside(decided, place, command, decided.entries[place][0], str(problem))
    _answer(decided, command, problem)


def over_quota(decided: Decided, place: int, command: Command, problem: Refused) -> None:
    """What a tenant has no room for now may be given again under its id: the log has nothing of it.

    Who asked for no outcome would never hear of it, so that is kept, for somebody to try again.
    """
    if command.reply_to:
        _answer(decided, command, problem)
    else:
        _put_aside(decided, place, command, decided.entries[place][0], str(problem))


def _put_aside(decided: Decided, place: int, command: Command, entry: str, reason: str) -> None:
    key, raw = commands_key(decided.share.partition), decided.entries[place][1]
    decided.letters.append(
        DeadLetter("command", key, entry, reason, raw, command.tenant, command.subject)
    )


def _answer(decided: Decided, command: Command, problem: Refused) -> None:
    """An outcome that is not in the log, so that the command may be given again."""
    if command.reply_to:
        share = decided.share
        outcome = Outcome(
            command.id, share.partition, share.last + 1, share.last, problem.problem()
        )
        decided.replies.append((command.reply_to, encode_outcome(outcome)))


def refused_content(
    share: Share, key: str, entry: str, reason: str, raw: bytes
) -> tuple[DeadLetter, dict[str, list[bytes]]]:
    """What is kept of a command that the database refuses, and what its giver is told.

    The log has nothing of it, so it may be given again when the cause is gone.
    """
    try:
        command = decode_command(raw)
    except Poison:
        return DeadLetter("command", key, entry, reason, raw), {}
    letter = DeadLetter("command", key, entry, reason, raw, command.tenant, command.subject)
    if not command.reply_to:
        return letter, {}
    problem = Refused(
        "UNACCEPTABLE",
        f"The database refused what {command.type} would store; it is kept as a dead letter.",
    )
    outcome = Outcome(command.id, share.partition, share.head + 1, share.head, problem.problem())
    return letter, {command.reply_to: [encode_outcome(outcome)]}
