"""The two messages that flow: a command (an intent for one aggregate) and an event (a fact).

Both travel as CloudEvents 1.0 in JSON, in the one field `message` of a Redis stream entry; `codec`
turns them into these plain types and back. Plain slotted dataclasses, because the hot path makes
hundreds of thousands of them a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEFAULT_TENANT = "default"


@dataclass(slots=True)
class Command:
    """An intent addressed to one aggregate; `data` is a JSON object that its decider reads."""

    id: str
    type: str
    aggregate: str
    root: str
    data: dict[str, Any]
    tenant: str = DEFAULT_TENANT
    actor: str = ""
    correlation: str | None = None
    causation: str | None = None
    traceparent: str | None = None
    reply_to: str | None = None
    time: str | None = None
    expected: int | None = None
    """The version that the aggregate must have; None takes any."""
    token: str | None = field(default=None, repr=False)
    """Says who commands; never stored, and gone once the command is admitted."""
    task_roles: frozenset[str] | None = None
    """Whose tasks the sender may answer; None is no bound. Known once the command is admitted."""

    @property
    def subject(self) -> str:
        """The aggregate that is meant, as `kind/id`."""
        return f"{self.aggregate}/{self.root}"


@dataclass(slots=True)
class Event:
    """A fact at its place in the log; `version` counts the changes of its aggregate: 1, 2, 3 …"""

    partition: int
    position: int
    type: str
    aggregate: str
    root: str
    version: int
    time: str
    tenant: str
    actor: str
    causation: str | None
    correlation: str | None
    data: dict[str, Any]

    @property
    def subject(self) -> str:
        """The aggregate that it happened to, as `kind/id`."""
        return f"{self.aggregate}/{self.root}"


@dataclass(slots=True)
class Outcome:
    """What became of one command: accepted with the positions of its events, or refused and why.

    `last < first` means that the command was accepted and changed nothing.
    """

    command_id: str
    partition: int
    first: int
    last: int
    problem: dict[str, Any] | None = None
    repeated: bool = False
    digest: int | None = field(default=None, compare=False)
    """Of what was commanded (see `codec.digest_of`); None where that is not known."""
