"""Places to resume from are read as they are written, and refused with a sentence (R50)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates.problem import Refused
from processors.following.places import PLACE_CHARS_MAX, read_place, write_place
from processors.following.wanted import Wanted
from streams.partition import partition_of

POSITIONS = st.dictionaries(st.integers(0, 63), st.integers(0, 10**17), min_size=1, max_size=64)


@given(POSITIONS)
def test_what_is_written_is_read(at):
    assert read_place(write_place(at), at) == dict(sorted(at.items()))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-1",
            "x",
            "3",
            "1:",
            ":1",
            "1:2,",
            "1:2;0:1",
            "9:1",
            "1:1e3",
            "１:1",
            "1:" + "9" * 19,
        ),
        "0:1," * (PLACE_CHARS_MAX // 4) + "0:1",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(Refused) as refused:
        read_place(text, {0, 1})
    assert refused.value.problem()["code"] == "INVALID_VALUE"


def test_a_number_is_enough_where_there_is_one_partition_only():
    assert read_place("17", {3}) == {3: 17}
    assert read_place("0", {0, 1}) == {0: 0, 1: 0}
    assert read_place("1:5", {0, 1}) == {0: 0, 1: 5}


def test_executions_are_in_their_partitions_and_everything_else_may_be_anywhere():
    wanted = Wanted("t", subjects=frozenset({"execution/a", "execution/b"}))
    assert wanted.partitions(16) == {partition_of("a", 16), partition_of("b", 16)}
    assert Wanted("t", workflow="w").partitions(4) == {0, 1, 2, 3}
