"""Dead letters as they are printed: what is in them comes from anywhere, and steers no terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.dead_letters import Letter

COLUMNS = ("id", "age", "kind", "status", "tries#", "subject", "reason")
ID_CHARS = 12  # of an id in a list: enough to name a letter
REASON_CHARS = 90
HEX_COLUMNS = 16


def described(letter: Letter) -> dict[str, Any]:
    """A letter as it is printed, without its bytes."""
    said = {
        "id": letter.id,
        "kind": letter.kind,
        "status": letter.status,
        "reason": letter.reason,
        "tenant": letter.tenant,
        "subject": letter.subject,
        "source": letter.source,
        "entry": letter.entry,
        "time": letter.time.isoformat(),
        "bytes": letter.raw_bytes,
        "tries": letter.tries,
        "decided_by": letter.decided_by,
        "decided_why": letter.decided_why,
        "decided_at": letter.decided_at.isoformat() if letter.decided_at else None,
        "due": letter.due or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def line(letter: Letter) -> tuple[Any, ...]:
    reason = letter.reason
    if len(reason) > REASON_CHARS:
        reason = reason[: REASON_CHARS - 1] + "…"
    age = str(datetime.now(UTC) - letter.time).partition(".")[0]
    name = letter.id[:ID_CHARS]
    return (name, age, letter.kind, letter.status, letter.tries, letter.subject, reason)


def as_text(raw: bytes) -> str:
    """The bytes as text, with what is none, and what steers terminals, written out."""
    text = raw.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def readable(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start > len(raw) - 4  # cut in the middle of a character
    return True


def as_hex(raw: bytes) -> str:
    lines = []
    for at in range(0, len(raw), HEX_COLUMNS):
        part = raw[at : at + HEX_COLUMNS]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:08x}  {part.hex(' '):<{3 * HEX_COLUMNS}} {shown}")
    return "\n".join(lines)
