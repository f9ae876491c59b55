"""Places in a document as it was sent, and pydantic's errors as one clear refusal each."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from aggregates.definitions import shape
from aggregates.problem import Refused
from streams.strict import pointer

SHOWN_CHARS_MAX = 60

_TWINS = {"task_id": "id", "agent_role": "agent", "input": "payload"}
_TWINS |= {second: first for first, second in _TWINS.items()}
_TYPES = {
    "string_type": "text (in quotes)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
_RANGES = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "string_too_long": ("at most this many characters:", "max_length"),
    "too_long": ("a list of at most this many items:", "max_length"),
}
_NUMBERS = {"int_type", "int_from_float", "float_type"}


def wrapped(document: object) -> bool:
    """Whether the definition stands under `workflow:`, as the specification writes it."""
    if not isinstance(document, dict) or set(document) != {"workflow"}:
        return False
    return isinstance(document["workflow"], dict)


def place(document: object, path: Sequence[object]) -> str:
    """The pointer of a path as far as the document goes, in the document's own spelling."""
    node: Any = document
    steps: list[object] = []
    for step in [*(["workflow"] if wrapped(document) else []), *path]:
        if isinstance(node, dict):
            step = step if step in node else _TWINS.get(str(step), step)
            if step not in node:
                break
        elif not isinstance(node, list) or not isinstance(step, int):
            break  # the rest names a branch of a union, not a place
        steps.append(step)
        node = node[step]
    return pointer(steps)


def shown(value: object) -> str:
    """A value in a sentence: short, in quotes where it is text."""
    if isinstance(value, str):
        return f'"{value[:SHOWN_CHARS_MAX]}{"…" if len(value) > SHOWN_CHARS_MAX else ""}"'
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)[:SHOWN_CHARS_MAX]


def refusal(error: ValidationError, document: object, *at: int | str) -> Refused:
    """The most telling of pydantic's errors: what we do not do yet, misspelt names, then the rest.

    `at` is the path of the part that was checked.
    """
    found = error.errors(include_url=False, include_context=True)
    rank = {"none_required": 0, "extra_forbidden": 1} | dict.fromkeys(_TYPES, 3)
    chosen = min(found, key=lambda each: rank.get(each["type"], 2))
    kind, path = chosen["type"], (*at, *chosen["loc"])
    where = place(document, path)
    name = str(path[-1]) if path else "document"
    if kind == "none_required":
        detail = f"`{name}` is not supported yet; leave it out."
        return Refused("NOT_SUPPORTED", detail, where)
    if kind == "extra_forbidden":
        return _unknown_field(name, path[:-1], where)
    if kind == "missing":
        twin = f" (or `{_TWINS[name]}`)" if name in _TWINS else ""
        detail = f"The field `{name}`{twin} is missing at {where or 'the top'}; add it."
        return Refused("MISSING_FIELD", detail, where)
    return _wrong_value(kind, path, chosen.get("ctx", {}), chosen["input"], where)


def _wrong_value(
    kind: str, path: Sequence[int | str], limits: dict[str, Any], value: object, where: str
) -> Refused:
    name = where.rpartition("/")[2] or "document"
    if kind in _TYPES:
        number = kind in _NUMBERS and isinstance(value, int | float)
        code, wanted = "INVALID_VALUE" if number else "INVALID_TYPE", _TYPES[kind]
    elif kind in _RANGES:
        words, limit = _RANGES[kind]
        code, wanted = "INVALID_VALUE", f"{words} {limits[limit]:,.16g}"
    elif kind == "literal_error":
        code, wanted = "INVALID_VALUE", str(limits["expected"])
    else:
        code, wanted = "INVALID_VALUE", "a valid value"
    return Refused(code, f"`{name}` must be {wanted}, not {shown(value)} (at {where}).", where)


def _unknown_field(name: str, path: Sequence[int | str], where: str) -> Refused:
    owner: type[BaseModel]
    match path:
        case (*_, "retry_policy"):
            owner = shape.PolicyShape
        case ("tasks", _):
            owner = shape.TaskShape
        case ("agents", _):
            owner = shape.AgentShape
        case ("coordination",):
            owner = shape.CoordinationShape
        case _:
            owner = shape.DefinitionShape
    fields = [*owner.model_fields]
    twins = [_TWINS[field] for field in fields if field in _TWINS]
    cure = "leave it out"
    if name in twins:
        cure = f"it says the same as `{_TWINS[name]}`: keep one of them"
    elif close := get_close_matches(name[:SHOWN_CHARS_MAX], fields + twins, 1):
        cure = f"did you mean `{close[0]}`?"
    elif "metadata" in fields:
        cure = "put data of your own under `metadata`"
    detail = f"The field {shown(name)} at {where} is unknown; {cure}."
    return Refused("UNKNOWN_FIELD", detail, where)
