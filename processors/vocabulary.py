"""Which commands and events there are, and the one check of a command's data from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from pydantic import Field as ModelField
from pydantic_core import CoreConfig, SchemaValidator

from aggregates import DECIDERS
from aggregates.decider import Decider
from aggregates.problem import Refused
from aggregates.tenant import TENANT
from streams.message import Command, Event
from streams.strict import pointer

_CODES = {"missing": "MISSING_FIELD", "extra_forbidden": "UNKNOWN_FIELD"}


class Vocabulary:
    """The deciders by name, and their commands and events by type."""

    def __init__(self, deciders: Sequence[Decider[Any]] = DECIDERS) -> None:
        self.deciders = {decider.name: decider for decider in deciders}
        self._commands = {
            (decider.name, kind.__name__): (kind, _checked(kind))
            for decider in deciders
            for kind in decider.commands
        }
        self.referring = frozenset(
            kind
            for decider in deciders
            for kind in decider.commands
            if any(f.name == "_blueprint" for f in fields(kind))
        )
        """The commands that get a workflow's blueprint attached before they are decided."""
        self._acting = frozenset(
            kind
            for decider in deciders
            for kind in decider.commands
            if any(f.name == "_actor" for f in fields(kind))
        )
        self._events = {
            (decider.name, kind.__name__): kind for decider in deciders for kind in decider.events
        }

    def command(self, command: Command) -> Any:
        """The typed command in an envelope; raises Refused."""
        kind, check = self._commands.get((command.aggregate, command.type), (None, None))
        if kind is None or check is None:
            known = sorted(name for owner, name in self._commands if owner == command.aggregate)
            raise Refused(
                "UNKNOWN_COMMAND",
                f"{command.aggregate!r} has no command {command.type!r}."
                + (f" It has {', '.join(known)}." if known else ""),
            )
        try:
            typed = kind(**check(command.data)[0])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise Refused(
                _CODES.get(first["type"], "INVALID_TYPE"),
                f"{command.type}: {first['msg']}.",
                pointer(first["loc"]),
            ) from None
        if kind in self._acting:
            typed._actor = command.actor
            if command.aggregate == TENANT.name and command.root != command.tenant:
                raise Refused("FOREIGN_TENANT", "Who decides on a tenant belongs to it.")
        return typed

    def event(self, event: Event) -> Any | None:
        """The typed event in an envelope; None for one that changes no state (a refusal)."""
        kind = self._events.get((event.aggregate, event.type))
        return None if kind is None else kind(**event.data)


def _checked(kind: type[Any]) -> Callable[[Any], tuple[dict[str, Any], Any, Any]]:
    """The check of a command's fields; strict (1 is not "1", true is not 1), unknown ones refused.

    It is pydantic's own check of a model's fields, without the model, which costs as much again.
    """
    hints = get_type_hints(kind)
    given: dict[str, Any] = {
        f.name: (hints[f.name], _default(f)) for f in fields(kind) if not f.name.startswith("_")
    }
    config = ConfigDict(extra="forbid", strict=True)
    schema: Any = create_model(kind.__name__, __config__=config, **given).__pydantic_core_schema__
    while schema["type"] != "model-fields":
        schema = schema["schema"]
    rules = CoreConfig(strict=True, extra_fields_behavior="forbid")
    return SchemaValidator(schema, rules).validate_python


def _default(of: Field[Any]) -> Any:
    if of.default_factory is not MISSING:
        return ModelField(default_factory=of.default_factory)
    return ... if of.default is MISSING else of.default
