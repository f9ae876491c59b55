"""What is committed is handed over in memory once, in order, and never with a hole."""

from __future__ import annotations

import asyncio

from processors import hand_over
from processors.hand_over import HandOver


def made(heads: dict[int, int]) -> HandOver:
    return HandOver(heads.get)


def test_what_follows_is_given_once():
    beside = made({})
    beside.give(1, 5, [b"5", b"6"])
    beside.give(1, 7, [b"7"])
    assert beside.take({1: 4}) == {1: [b"5", b"6", b"7"]}
    assert beside.take({1: 7}) == {}


def test_what_was_read_elsewhere_meanwhile_is_left_out():
    beside = made({})
    beside.give(1, 5, [b"5", b"6"])
    assert beside.take({1: 5}) == {1: [b"6"]}
    beside.give(1, 5, [b"5", b"6"])
    assert beside.take({1: 6}) == {}


def test_behind_a_hole_nothing_is_given():
    """I11: the commit in between had no answer; the reader goes to the log."""
    beside = made({1: 9})
    beside.give(1, 5, [b"5"])
    beside.give(1, 8, [b"8", b"9"])
    assert beside.take({1: 4}) == {}
    assert beside.elsewhere({1: 4}) == {1: 4}


def test_of_a_partition_that_is_not_read_here_nothing_is_kept():
    beside = made({})
    beside.give(2, 1, [b"1"])
    assert beside.take({1: 0}) == {}
    assert beside.take({2: 0}) == {}


def test_a_reader_that_is_far_behind_reads_the_log(monkeypatch):
    monkeypatch.setattr(hand_over, "EVENTS_MAX", 3)
    beside = made({1: 4})
    beside.give(1, 1, [b"1", b"2"])
    beside.give(1, 3, [b"3", b"4"])
    assert beside.take({1: 0}) == {}
    assert beside.elsewhere({1: 0}) == {1: 0}


def test_what_is_elsewhere_is_what_is_not_ours_or_has_moved_on():
    beside = made({1: 4, 2: 7})
    assert beside.elsewhere({1: 4, 2: 6, 3: 0}) == {2: 6, 3: 0}


async def test_a_commit_wakes_the_reader():
    beside = made({})
    waiting = asyncio.ensure_future(beside.arrived())
    await asyncio.sleep(0)
    beside.give(1, 1, [])
    beside.given()
    await asyncio.sleep(0)
    assert not waiting.done()
    beside.give(1, 1, [b"1"])
    beside.given()
    await waiting


async def test_a_commit_that_is_taken_at_once_wakes_nobody():
    beside = made({})
    taken: list[dict[int, list[bytes]]] = []

    def take() -> bool:
        taken.append(beside.take(dict.fromkeys(beside.partitions, 0)))
        return True

    beside.taker = take
    waiting = asyncio.ensure_future(beside.arrived())
    await asyncio.sleep(0)
    beside.give(1, 1, [b"1"])
    beside.give(2, 1, [b"2"])
    beside.given()
    await asyncio.sleep(0)
    assert taken == [{1: [b"1"], 2: [b"2"]}]
    assert not waiting.done()
    beside.wake()
    await waiting
