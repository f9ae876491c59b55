"""The two messages that flow: a command (an intent for one aggregate) and an event (a fact).

Both travel as CloudEvents 1.0 in JSON, in the one field `message` of a Redis stream entry; `codec`
turns them into these plain types and back. Plain slotted types, because the hot path makes hundreds
of thousands of them a second; a command is a msgspec structure, which is read in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

DEFAULT_TENANT = "default"


TEXT_CHARS_MAX = 200
TOKEN_CHARS_MAX = 8_192
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]
_Version = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARS_MAX)]


class Command(
    msgspec.Struct,
    gc=False,
    forbid_unknown_fields=True,  # what is passed over would not be checked
    rename={
        "correlation": "correlationid",
        "causation": "causationid",
        "reply_to": "replyto",
        "expected": "expectedversion",
    }
    # What nobody can say: `quick` reads ASCII only.
    | {name: f"·{name}" for name in ("aggregate", "root", "task_roles", "digest")},
):
    """An intent addressed to one aggregate; `data` is a JSON object that its decider reads.

    `subject` is the aggregate that is meant, as `kind/id`: made of `aggregate` and `root`, or they
    of it. The bounds hold for what `quick` reads; `codec` names what is outside of them.
    """

    id: _Name
    type: _Name
    aggregate: str = ""
    root: str = ""
    data: Any = None
    tenant: _Text = DEFAULT_TENANT
    actor: _Text = ""
    correlation: _Text | None = None
    causation: _Text | None = None
    traceparent: _Text | None = None
    reply_to: _Text | None = None
    time: _Text | None = None
    expected: _Version | None = None
    """The version that the aggregate must have; None takes any."""
    token: Annotated[str, msgspec.Meta(max_length=TOKEN_CHARS_MAX)] | None = None
    """Says who commands; never stored, and gone once the command is admitted."""
    origin: _Text | None = None
    """From where it was given, as whoever relays it says: for the audit trail."""
    task_roles: frozenset[str] | None = None
    """Whose tasks the sender may answer; None is no bound. Known once the command is admitted."""
    subject: _Text = ""
    source: _Text | None = None
    """Checked and not kept, as the next one."""
    specversion: str | None = None
    digest: int = 0
    """Of what is commanded, once it was read (see `quick.digest_of`); never what was sent."""

    def __post_init__(self) -> None:
        if self.subject:
            self.aggregate, _, self.root = self.subject.partition("/")
        else:
            self.subject = f"{self.aggregate}/{self.root}"

    def __eq__(self, other: object) -> bool:
        """Equal in what is said and kept; whether one was read is not asked."""
        if not isinstance(other, Command):
            return NotImplemented
        return msgspec.structs.astuple(self)[:-3] == msgspec.structs.astuple(other)[:-3]

    def __repr__(self) -> str:
        """Without its token, which is a secret."""
        said = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != "token")
        return f"Command({', '.join(f'{name}={value!r}' for name, value in said)})"

    __hash__ = None  # type: ignore[assignment]

    def but(self, **changes: Any) -> Command:
        """The same command with other values in some of its fields."""
        if "root" in changes or "aggregate" in changes:
            changes["subject"] = ""
        return msgspec.structs.replace(self, **changes)


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


class Outcome(msgspec.Struct, gc=False):
    """What became of one command: accepted with the positions of its events, or refused and why.

    `last < first` means that the command was accepted and changed nothing. Thousands of them are
    kept, which nobody need search for garbage.
    """

    command_id: str
    partition: int
    first: int
    last: int
    problem: dict[str, Any] | None = None
    repeated: bool = False
    digest: int | None = None
    """Of what was commanded (see `quick.digest_of`); None where that is not known."""

    def __eq__(self, other: object) -> bool:
        """Equal in what is told; the digest is not."""
        if not isinstance(other, Outcome):
            return NotImplemented
        return msgspec.structs.astuple(self)[:-1] == msgspec.structs.astuple(other)[:-1]

    __hash__ = None  # type: ignore[assignment]
