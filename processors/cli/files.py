"""Reading workflow files as people have them: JSON, YAML, gzip, standard input, lists of many."""

from __future__ import annotations

import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from aggregates.definition import Definition

FILE_BYTES_MAX = 64 * 1024 * 1024  # a list of many definitions; each has its own, smaller limit
DEFINITIONS_MAX = 10_000
CHUNK_BYTES = 1024 * 1024
GZIP_MAGIC = b"\x1f\x8b"
STDIN = "-"


class Source(NamedTuple):
    """One definition as it is sent to the engine: the file's own text, or one item of its list."""

    label: str
    text: str
    format: Literal["json", "yaml"]
    place: int | None = None

    def check(self) -> Definition:
        """The definition, checked as the engine checks it; raises Refused."""
        from aggregates.definition import parse_definition
        from aggregates.problem import Refused

        try:
            return parse_definition(self.text, self.format)
        except Refused as refused:
            if self.place is None:
                raise
            # The place is given in the file as the user has it.
            pointer = f"/{self.place}{refused.pointer or ''}"
            raise Refused(refused.code, refused.detail, pointer, **refused.facts) from None


def read_sources(name: str) -> list[Source]:
    """The definitions in a file; raises Refused, or OSError where it cannot be read."""
    from aggregates.problem import Refused

    raw = _read(name)
    label = "stdin" if name == STDIN else Path(name).name.removesuffix(".gz")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        where = f"line {raw.count(10, 0, error.start) + 1}"
        raise Refused("INVALID_JSON", f"{label} is not UTF-8 at {where}; encode it so.") from None
    start = text[:CHUNK_BYTES].lstrip()
    if Path(label).suffix in (".yaml", ".yml"):
        return [Source(label, text, "yaml")]
    if Path(label).suffix != ".json" and not start.startswith(("{", "[")):
        return [Source(label, text, "yaml")]
    if start.startswith("["):
        return _items(label, raw)
    return [Source(label, text, "json")]


def _items(label: str, raw: bytes) -> list[Source]:
    import orjson

    from aggregates.problem import Refused
    from streams.strict import Malformed, parse

    try:
        items = parse(raw, bytes_max=FILE_BYTES_MAX)
    except Malformed as error:
        raise Refused(error.code, error.detail, error.pointer) from None
    if len(items) > DEFINITIONS_MAX:
        detail = f"The list holds {len(items)} definitions; at most {DEFINITIONS_MAX} may be."
        raise Refused("TOO_LARGE", detail, "")
    return [
        Source(f"{label}[{index}]", orjson.dumps(item).decode(), "json", index)
        for index, item in enumerate(items)
    ]


def _read(name: str) -> bytes:
    """A file's bytes, unpacked where it is gzip; never more than the limit."""
    if name == STDIN:
        return _bounded(sys.stdin.buffer)
    with Path(name).open("rb") as file:
        return _bounded(file)


def _bounded(file: IO[bytes]) -> bytes:
    import gzip

    from aggregates.problem import Refused

    raw = file.read(FILE_BYTES_MAX + 1)
    if raw.startswith(GZIP_MAGIC):
        try:
            raw = gzip.GzipFile(fileobj=BytesIO(raw)).read(FILE_BYTES_MAX + 1)
        except (EOFError, OSError, zlib.error):
            raise Refused("INVALID_JSON", "The gzip file is damaged; pack it again.") from None
    if len(raw) > FILE_BYTES_MAX:
        raise Refused("TOO_LARGE", f"The file holds more than {FILE_BYTES_MAX:,} bytes; split it.")
    return raw
