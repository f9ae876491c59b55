"""Redis Streams as the engine reads and writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streams.bus import REPLIES_KEPT_S, Bus


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = Bus(redis_url)
    yield made
    await made.close()


async def test_the_field_message_is_found_wherever_it_stands(bus: Bus) -> None:
    strange = {"other": "1", "message": b"second"}
    await bus.redis.xadd("s", strange)
    await bus.redis.xadd("s", {"message": "first", "other": "2"})
    await bus.redis.xadd("s", {"other": "3"})
    read = await bus.read({"s": "0-0", "nothing": "0-0"}, 10)
    assert [message for _, message in read["s"]] == [b"second", b"first", b""]
    assert "nothing" not in read


async def test_reading_goes_on_behind_the_last_entry(bus: Bus) -> None:
    ids = (await bus.append({"s": [b"\x00\r\n$", "ü".encode(), b""]}))["s"]
    first = await bus.read({"s": "0-0"}, 2)
    assert first == {"s": [(ids[0].decode(), b"\x00\r\n$"), (ids[1].decode(), "ü".encode())]}
    rest = await bus.read({"s": first["s"][-1][0]}, 2)
    assert rest == {"s": [(ids[2].decode(), b"")]}
    assert await bus.read({"s": ids[2].decode()}, 2, block_ms=1) == {}
    assert await bus.last_id("s") == ids[2].decode()  # a command of two words
    assert await bus.last_id("nothing") == "0-0"


async def test_answers_that_nobody_reads_go_by_themselves(bus: Bus) -> None:
    """R60: who names other streams again and again fills no server with them."""
    ids = await bus.append({"replies:a": [b"1", b"2"], "replies:b": [b"3"], "s": [b"4"]})
    assert [len(got) for got in ids.values()] == [2, 1, 1]
    assert [message for _, message in (await bus.read({"replies:a": "0"}, 9))["replies:a"]] == [
        b"1",
        b"2",
    ]
    for key in ("replies:a", "replies:b"):
        assert 0 < await bus.redis.ttl(key) <= REPLIES_KEPT_S
    assert await bus.redis.ttl("s") == -1


async def test_many_streams_are_written_in_one_call(bus: Bus) -> None:
    given = {f"s{n}": [f"{n}-{i}".encode() for i in range(5_000)] for n in range(3)}
    ids = await bus.append(given)
    assert {key: len(set(got)) for key, got in ids.items()} == dict.fromkeys(given, 5_000)
    for key, messages in given.items():
        assert [message async for _, message in bus.scan(key)] == messages
