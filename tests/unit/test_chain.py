"""What verification takes for agreement without reading a message is agreement (R55)."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from streams.chain import _begins, _says
from streams.codec import encode_event
from streams.log import Stored
from streams.message import Command

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
TIME = "2026-01-02T03:04:05.000000Z"


def stored(position: int = 4, kind: str = "Done", subject: str = "thing/a") -> Stored:
    """An event as it is written, in partition 3, with columns that say the same."""
    command = Command("c", "Do", "thing", "a", {})
    message = encode_event(3, position, kind, subject, 1, TIME, command, {"a": 1})
    return Stored(position, kind, subject, message)


def test_what_we_write_is_known_by_its_begin():
    for position in (1, 4, 10**12):
        assert _begins(stored(position, subject="execution/0190-ü"), 3)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.integers(3, 5), st.integers(2, 4))
@example("Done", "thing/a", "Done", f'thing/a","time":"{TIME}', 4, 3)
@example("Done", "thing/a", 'Done","subject":"thing/a', "thing/b", 4, 3)
@example("Done", 'thing/"a', "Done", 'thing/\\"a', 4, 3)
def test_no_other_column_passes_for_what_the_message_says(
    kind, subject, other_kind, other_subject, position, partition
):
    message = stored(4, kind, subject).message
    for one in (kind, other_kind):
        for two in (subject, other_subject):
            event = Stored(position, one, two, message)
            assert _says(event, partition) or not _begins(event, partition)
