"""YAML to JSON values, one event at a time: no tags, no code, no recursion, few aliases.

Plain scalars mean what YAML 1.2's core schema says, the same as JSON: `no` and `on` are text and a
date is text. PyYAML's own loaders follow YAML 1.1, and recurse.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from aggregates.problem import Refused
from streams.strict import DEPTH_MAX, integer

ALIASES_MAX = 1000  # an alias repeats a value; a page of them is convenience, more is a bomb
VALUES_MAX = 1_000_000  # counted with what aliases repeat

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read(text: str) -> Any:
    """The one document in `text`; raises Refused with line and column."""
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _refused(str(error.problem), error.problem_mark) from None
    except yaml.reader.ReaderError as error:
        raise _refused(f"{error.reason} (U+{error.character:04X})") from None
    return builder.value


class _Builder:
    """Puts values together from events; containers under construction stand on a stack."""

    def __init__(self) -> None:
        self.value: Any = None
        self.documents = 0
        self.stack: list[tuple[Any, str | None, int]] = []  # container, its anchor, size before it
        self.keys: list[Any] = []  # for each container the key that waits for its value
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.aliases = 0
        self.size = 0

    def take(self, event: Any) -> None:
        """Go on by one event."""
        if isinstance(event, yaml.ScalarEvent):
            self._no_tag(event)
            value = _plain(event.value) if event.implicit[0] else event.value
            self._anchor(event.anchor, value, 1)
            self._place(value, 1, event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._no_tag(event)
            if len(self.stack) >= DEPTH_MAX:
                raise _refused(f"it is nested deeper than {DEPTH_MAX} levels", event.start_mark)
            made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            before = self.size
            self._place(made, 1, event)
            self.stack.append((made, event.anchor, before))
            self.keys.append(_NONE)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            made, anchor, before = self.stack.pop()
            self.keys.pop()
            self._anchor(anchor, made, self.size - before)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise _refused("a second document begins; send one at a time", event.start_mark)

    def _place(self, value: Any, size: int, event: Any) -> None:
        """Put a value where the innermost open container expects one."""
        self.size += size
        if self.size > VALUES_MAX:
            detail = f"The document holds more than {VALUES_MAX:,} values, aliases counted in full."
            raise Refused("TOO_LARGE", f"{detail} Split it.")
        if not self.stack:
            self.value = value
            return
        container = self.stack[-1][0]
        if isinstance(container, list):
            container.append(value)
        elif self.keys[-1] is _NONE:
            if not isinstance(value, str):
                mark = event.start_mark
                where = f"line {mark.line + 1}, column {mark.column + 1}"
                raise Refused("INVALID_TYPE", f"A key must be text at {where}: put it in quotes.")
            self.keys[-1] = value
        else:
            container[self.keys[-1]] = value
            self.keys[-1] = _NONE

    def _anchor(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, size)

    def _alias(self, event: Any) -> None:
        self.aliases += 1
        if self.aliases > ALIASES_MAX:
            detail = f"The document has more than {ALIASES_MAX:,} aliases; write the values out."
            raise Refused("TOO_LARGE", detail)
        if event.anchor not in self.anchors:
            raise _refused(f"the alias *{event.anchor} has no anchor before it", event.start_mark)
        self._place(*self.anchors[event.anchor], event)

    def _no_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!":
            raise _refused("tags (!…) are not supported", event.start_mark)


_NONE = object()


def _plain(text: str) -> Any:
    """What an unquoted scalar means in the core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _refused(problem: str, mark: Any = None) -> Refused:
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return Refused("INVALID_YAML", f"The YAML cannot be read: {problem}{where}.")
