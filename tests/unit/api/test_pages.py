"""Cursors: opaque, and of one question only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.api.pages import CURSOR_CHARS_MAX, page, read, written
from processors.api.problems import Problem

FILTERS = ("executions", None, "failed")
TIMES = st.datetimes(timezones=st.just(UTC))


@given(time=TIMES, name=st.text(min_size=1, max_size=50), number=st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back_as_the_place_that_it_was_made_of(time, name, number):
    cursor = written(FILTERS, (time, name, number))
    assert read(cursor, FILTERS, (datetime, str, int)) == [time, name, number]


@given(cursor=st.text(max_size=80))
def test_any_text_is_a_cursor_or_a_problem(cursor):
    with pytest.raises(Problem, match="not one of ours"):
        read(cursor, FILTERS, (str,))


@given(data=st.data())
def test_a_cursor_that_was_changed_is_refused(data):
    cursor = written(FILTERS, ("0190",))
    place = data.draw(st.integers(0, len(cursor) - 2))  # the last one has bits that say nothing
    other = data.draw(st.sampled_from("abcXYZ019_-").filter(lambda c: c != cursor[place]))
    with pytest.raises(Problem):
        read(cursor[:place] + other + cursor[place + 1 :], FILTERS, (str,))


def test_a_cursor_of_another_question_is_refused():
    cursor = written(FILTERS, ("a",))
    for filters, kinds in ((("executions", None, None), (str,)), (FILTERS, (str, str))):
        with pytest.raises(Problem):
            read(cursor, filters, kinds)


def test_a_page_names_the_next_one_only_where_there_is_more():
    assert page([1, 2], 2, FILTERS, []) == {"items": [1, 2], "next": None}
    more = page([1, 2, 3], 2, FILTERS, [2])
    assert more["items"] == [1, 2]
    assert read(more["next"], FILTERS, (int,)) == [2]
    longest = written(FILTERS, (datetime.now(UTC), "x" * 200))
    assert len(longest) < CURSOR_CHARS_MAX


def test_no_cursor_is_the_beginning():
    assert read(None, FILTERS, (str,)) is None
