"""Which commands and events there are: names to types, and the one check of what comes from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aggregates import DECIDERS
from aggregates.decider import Decider
from aggregates.problem import Refused
from streams.message import Command, Event

_CODES = {"missing": "MISSING_FIELD", "unexpected_keyword_argument": "UNKNOWN_FIELD"}


class Vocabulary:
    """The deciders by name, and their commands and events by type."""

    def __init__(self, deciders: Sequence[Decider[Any]] = DECIDERS) -> None:
        self.deciders = {decider.name: decider for decider in deciders}
        self._commands = {
            (decider.name, kind.__name__): _checked(kind)
            for decider in deciders
            for kind in decider.commands
        }
        self._events = {
            (decider.name, kind.__name__): kind for decider in deciders for kind in decider.events
        }

    def command(self, command: Command) -> Any:
        """The typed command in an envelope; raises Refused."""
        adapter = self._commands.get((command.aggregate, command.type))
        if adapter is None:
            known = sorted(name for kind, name in self._commands if kind == command.aggregate)
            raise Refused(
                "UNKNOWN_COMMAND",
                f"{command.aggregate!r} has no command {command.type!r}."
                + (f" It has {', '.join(known)}." if known else ""),
            )
        try:
            return adapter.validate_python(command.data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise Refused(
                _CODES.get(first["type"], "INVALID_TYPE"),
                f"{command.type}: {first['msg']}.",
                "/" + "/".join(str(part) for part in first["loc"]),
            ) from None

    def event(self, event: Event) -> Any | None:
        """The typed event in an envelope; None for one that changes no state (a refusal)."""
        kind = self._events.get((event.aggregate, event.type))
        return None if kind is None else kind(**event.data)


def _checked(kind: type) -> TypeAdapter[Any]:
    # Strict: 1 is not "1" and true is not 1. Unknown fields are refused, not dropped.
    kind.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return TypeAdapter(kind)
