"""Which fields of commands and events hold payloads, said once, beside the messages themselves.

Payloads are sealed at rest and the engine passes them on as they are; what decisions and queries go
by stays in clear. A field that can hold anything is declared as one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Sealed:
    """A payload; `name` is the field that its ciphertext is bound to, from command to event.

    It is one value, values by task, a text of which an error's name stays in clear, or a whole
    source text.
    """

    name: str
    form: Literal["value", "values", "text", "source"] = "value"


@dataclass(frozen=True, slots=True)
class Clear:
    """Something that may hold anything and stays in clear, and why."""

    why: str


Input = Annotated[Any, Sealed("input")]
Inputs = Annotated[dict[str, Any], Sealed("input", "values")]
Output = Annotated[Any, Sealed("output")]
Outputs = Annotated[dict[str, Any] | None, Sealed("output", "values")]
Prompt = Annotated[Any, Sealed("prompt")]
Answer = Annotated[Any, Sealed("answer")]
Signal = Annotated[Any, Sealed("signal")]
Undone = Annotated[Any, Sealed("undone")]
Error = Annotated[str, Sealed("error", "text")]
Reason = Annotated[str, Sealed("error", "text")]
"""Why something ended: it may repeat an agent's error, whose sealed part it then has."""
Document = Annotated[dict[str, Any] | None, Sealed("definition")]
Source = Annotated[str | None, Sealed("definition", "source")]
Policy = Annotated[dict[str, Any] | None, Clear("How often to try again is decided by it.")]
Card = Annotated[dict[str, Any] | None, Clear("An agent's card is what it shows to everybody.")]


@cache
def sealed_fields(kind: type[Any]) -> dict[str, Sealed]:
    """The payloads of a message, by field."""
    assert is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: mark
        for field in fields(kind)
        if get_origin(hints[field.name]) is Annotated
        for mark in hints[field.name].__metadata__
        if isinstance(mark, Sealed)
    }
