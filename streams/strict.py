"""The one parser at the edge: bytes to JSON values that every later reader accepts as well.

orjson, orjson's own writer, pydantic and PostgreSQL each refuse something another one accepts: NUL,
half surrogate pairs, NaN, 1e400, deep nesting, integers beyond 64 bits. What passes here passes
everywhere. Of a key that occurs twice in one object the last one counts, here and so for everybody;
an integer beyond 64 bits becomes the nearest double, as in JavaScript.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import accumulate
from math import isfinite
from typing import Any

import orjson

DEPTH_MAX = 64  # far above what people write, far below every parser's own limit
VALUES_MAX = 5_000_000  # more than 8 MiB of JSON can hold; ends walks over endless objects
POINTER_CHARS_MAX = 300  # a hostile key may be megabytes long
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1  # what orjson writes
INTEGER_DIGITS_MAX = 20  # more digits than this are read as a double; Python refuses 4,301

_LEAF_PASSES = 3  # usual documents are nearly flat: after three passes little is left to count
_CLOSED_ALIKE = bytes.maketrans(b"{}", b"[]")
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")  # +1 and -1, read as signed bytes
_SHORT_STRING = re.compile(rb'"[^"]*"?')
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class Malformed(Exception):
    """The bytes or values are not what every part of the engine can read."""

    def __init__(self, code: str, detail: str, pointer: str | None = None) -> None:
        self.code = code
        self.detail = detail
        self.pointer = pointer
        super().__init__(f"{code}: {detail}")


def parse(raw: bytes, *, bytes_max: int, depth_max: int = DEPTH_MAX) -> Any:
    """The JSON value in `raw`; raises Malformed with the cause and its place."""
    if len(raw) > bytes_max:
        raise Malformed("TOO_LARGE", f"{len(raw):,} bytes were sent; at most {bytes_max:,} may be.")
    # Few brackets cannot nest deeply: most messages need no closer look.
    if raw.count(b"{") + raw.count(b"[") > depth_max and _depth(raw) > depth_max:
        raise _too_deep(raw, depth_max)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _cause(raw, error) from None
    if b"\\" in raw and b"\\u0000" in raw:  # perhaps only an escaped backslash before u0000
        check_text(value, depth_max=depth_max)
    return value


def check_text(value: Any, *, depth_max: int = DEPTH_MAX) -> None:
    """Refuse what `parse` would have refused, in values that came another way (YAML, Python)."""
    problem = _scalar(value)
    if problem:
        raise Malformed(*problem, "")
    stack: list[tuple[Any, Any, int]] = [(value, None, 1)]
    seen = 0
    while stack:
        node, trail, depth = stack.pop()
        if type(node) is not dict and type(node) is not list:
            continue
        seen += len(node)
        if depth > depth_max:
            detail = f"The value is nested deeper than {depth_max} levels; make it flatter."
            raise Malformed("INVALID_JSON", detail, _path(trail))
        if seen > VALUES_MAX:
            detail = f"The value holds more than {VALUES_MAX:,} values; send it in parts."
            raise Malformed("TOO_LARGE", detail, "")
        named = isinstance(node, dict)
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            if named and (type(key) is not str or _scalar(key)):
                code, detail = _scalar(key) or ("INVALID_TYPE", "A key must be text: quote it.")
                raise Malformed(code, detail, _path((trail, key)))
            kind = type(item)
            if kind is dict or kind is list:
                stack.append((item, (trail, key), depth + 1))
            elif problem := _scalar(item):
                raise Malformed(*problem, _path((trail, key)))


def integer(digits: str) -> int | float:
    """The number that `digits` write; beyond 64 bits the nearest double, as orjson reads it."""
    if len(digits) <= INTEGER_DIGITS_MAX and INTEGER_MIN <= (number := int(digits)) <= INTEGER_MAX:
        return number
    return float(digits)


def pointer(path: Iterable[object]) -> str:
    """A JSON pointer (RFC 6901), bounded and printable, since keys may be hostile."""
    parts = (str(part)[:POINTER_CHARS_MAX].replace("~", "~0").replace("/", "~1") for part in path)
    text = "".join(f"/{part}" for part in parts)[: POINTER_CHARS_MAX + 1]
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= POINTER_CHARS_MAX else clean[: POINTER_CHARS_MAX - 1] + "…"


def _scalar(value: Any) -> tuple[str, str] | None:
    """Code and sentence of what is wrong with a single value."""
    kind = type(value)
    if kind is str:
        if "\0" in value:
            return "INVALID_PAYLOAD", "Text may not hold the character NUL; leave it out."
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                cure = "write both halves, or leave it out"
                return "INVALID_PAYLOAD", f"Text holds half of a surrogate pair; {cure}."
    elif kind is float:
        if not isfinite(value):
            return "INVALID_VALUE", "A number must be finite and fit a double; write a smaller one."
    elif kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            return "INVALID_VALUE", "An integer must fit 64 bits; write a smaller one, or text."
    elif not (value is None or kind is bool or kind is dict or kind is list):
        return "INVALID_TYPE", f"A {kind.__name__} is not a JSON value; write it as text."
    return None


def _path(trail: Any) -> str:
    """The pointer of a chain (outer chain, key)."""
    path: list[object] = []
    while trail is not None:
        trail, key = trail
        path.append(key)
    return pointer(reversed(path))


def _depth(raw: bytes) -> int:
    """How deep the brackets outside strings are nested, without a loop over the bytes."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = raw.translate(_CLOSED_ALIKE, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")
    if b'"' in marks:  # some string has brackets in it
        marks = _SHORT_STRING.sub(b"", marks)
    for level in range(_LEAF_PASSES):
        if not marks:
            return level
        marks = marks.replace(b"[]", b"")  # takes the innermost level away
    steps = memoryview(marks.translate(_STEPS)).cast("b")
    return _LEAF_PASSES + max(accumulate(steps), default=0)


def _too_deep(raw: bytes, depth_max: int) -> Malformed:
    """The refusal of deep nesting, with the place where it becomes too deep."""
    depth = 0
    for token in _TOKEN.finditer(raw):
        depth += {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}.get(raw[token.start()], 0)
        if depth > depth_max:
            break
    place = _place(raw[: token.start()])
    detail = f"The document is nested deeper than {depth_max} levels at {place}; make it flatter."
    return Malformed("INVALID_JSON", detail)


def _cause(raw: bytes, error: orjson.JSONDecodeError) -> Malformed:
    """Why orjson refused: a second, lenient reading tells bad values from bad syntax."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        place = _place(raw[: wrong.start])
        return Malformed("INVALID_JSON", f"The document is not UTF-8 at {place}; encode it so.")
    if text.startswith("\ufeff"):
        cure = "save it as UTF-8 without one"
        detail = f"A byte order mark stands before the document at line 1, column 1; {cure}."
        return Malformed("INVALID_JSON", detail)
    try:
        check_text(json.loads(text, parse_int=integer))
    except Malformed as found:
        return found
    except (ValueError, RecursionError):
        pass  # then it is the syntax
    where = f"line {error.lineno}, column {error.colno}"
    return Malformed("INVALID_JSON", f"The document is not JSON: {error.msg} at {where}.")


def _place(before: bytes) -> str:
    """Line and column, both counted from 1, of what follows `before`."""
    line = before[before.rfind(b"\n") + 1 :]
    column = len(line.decode(errors="replace")) + 1
    return f"line {before.count(10) + 1}, column {column}"
