"""What hosts could not handle, on its way into the table of dead letters.

Hosts know no database: they write to a bounded stream, and the engine moves it on. Moved twice is
harmless, since a letter that is there stays as it is.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import orjson

from processors.sealing import seal_letters
from streams.bus import Bus
from streams.log import DeadLetter, Log
from streams.partition import DEAD_LETTERS
from streams.sealing.keyring import Keyring

KIND = "task"
LETTER_BYTES_MAX = 64 * 1024  # of the raw bytes; a task's are in the log as well
MOVE_ENTRIES_MAX = 200


def encode_letter(stream: bytes, entry: bytes, reason: str, raw: bytes) -> bytes:
    """A task that could not be handled, as bytes for the stream `dead-letters`."""
    if len(raw) > LETTER_BYTES_MAX:
        reason = f"{reason} (the first {LETTER_BYTES_MAX:,} of {len(raw):,} bytes are kept)"
    return orjson.dumps(
        {
            "source": stream.decode(errors="replace"),
            "entry": entry.decode(errors="replace"),
            "reason": reason,
            "raw": b64encode(raw[:LETTER_BYTES_MAX]).decode(),
        }
    )


def decode_letter(message: bytes, entry: str) -> DeadLetter:
    """The letter; what is none is one itself, with its own place in the stream."""
    try:
        said = orjson.loads(message)
        raw = b64decode(said["raw"], validate=True)
        texts = [said[name] for name in ("source", "entry", "reason")]
        if all(type(text) is str and "\0" not in text for text in texts):
            return DeadLetter(KIND, texts[0], texts[1], texts[2], raw)
    except (ValueError, KeyError, TypeError):
        pass
    return DeadLetter(KIND, DEAD_LETTERS, entry, "INVALID_JSON: This is no letter.", message)


async def move_letters(log: Log, bus: Bus, keys: Keyring | None = None) -> int:
    """Store what hosts have left, at most MOVE_ENTRIES_MAX; returns how many."""
    entries: Any = await bus.redis.xrange(DEAD_LETTERS, count=MOVE_ENTRIES_MAX)
    if entries:
        letters = [decode_letter(fields.get(b"message", b""), e.decode()) for e, fields in entries]
        await log.bury(await seal_letters(keys, letters))
        await bus.redis.xdel(DEAD_LETTERS, *[entry for entry, _ in entries])
    return len(entries)
