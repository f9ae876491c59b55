"""Places to resume from: how far each partition was heard, written `3:17,5:2`.

What is not named is at its beginning. An event's own place is `partition:position`, so whoever puts
that into the place that was said last resumes after exactly this event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from aggregates.problem import Refused

PLACE_CHARS_MAX = 7_000  # a request line has at most 8,192 bytes
_PLACE = re.compile(r"\d{1,4}:\d{1,18}(,\d{1,4}:\d{1,18})*|\d{1,18}", re.ASCII)


def read_place(text: str, partitions: Iterable[int]) -> dict[int, int]:
    """The positions in `text` for these partitions; raises Refused.

    A number alone is a position in the only partition there is; 0 is the beginning of all.
    """
    at = dict.fromkeys(sorted(partitions), 0)
    if len(text) > PLACE_CHARS_MAX or not _PLACE.fullmatch(text):
        detail = "`from` is a place that was said before, such as `3:17,5:2`, or 0 for everything."
        raise Refused("INVALID_VALUE", detail)
    if ":" not in text:
        if len(at) > 1 and int(text):
            raise Refused("INVALID_VALUE", "`from` must name partitions here, such as `3:17,5:2`.")
        return dict.fromkeys(at, int(text))
    for part in text.split(","):
        partition, _, position = part.partition(":")
        if int(partition) not in at:
            raise Refused(
                "INVALID_VALUE", f"`from` names the partition {partition}: not heard here."
            )
        at[int(partition)] = int(position)
    return at


def write_place(at: Mapping[int, int]) -> str:
    """The place as text; never empty."""
    return ",".join(f"{p}:{position}" for p, position in at.items() if position) or "0"
