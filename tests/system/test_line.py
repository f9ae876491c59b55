"""A line to Redis: calls in order, errors that say so, and a connection that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as NotAnswered

from streams.bus import Bus
from streams.line import Line
from tests.system.hosts import until


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = Bus(redis_url)
    yield made
    await made.close()


async def test_calls_that_wait_at_once_get_their_own_answers(bus: Bus) -> None:
    said = await asyncio.gather(*(bus.line.one(b"ECHO", str(n)) for n in range(500)))
    assert said == [str(n).encode() for n in range(500)]
    big = b"x" * 3_000_000
    assert await bus.line.call((b"ECHO", big), (b"ECHO", b"")) == [big, b""]


async def test_an_error_is_the_answer_of_its_own_command(bus: Bus) -> None:
    replies = await bus.line.call((b"ECHO", "a"), (b"NOTHING",), (b"EVALSHA", "0" * 40, 0))
    assert replies[0] == b"a"
    assert type(replies[1]) is ResponseError
    assert type(replies[2]) is NoScriptError
    with pytest.raises(ResponseError):
        await bus.line.one(b"NOTHING")


async def test_who_is_cancelled_leaves_the_others_their_answers(bus: Bus) -> None:
    await bus.line.one(b"PING")
    first = asyncio.ensure_future(bus.line.one(b"ECHO", "first"))
    second = asyncio.ensure_future(bus.line.one(b"ECHO", "second"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"second"


async def test_a_lost_connection_ends_every_wait_and_is_made_anew(bus: Bus) -> None:
    line = bus.another_line()
    number = await line.one(b"CLIENT", b"ID")
    waiting = [
        asyncio.ensure_future(line.one(b"BLPOP", "nothing", 5)),
        asyncio.ensure_future(line.one(b"PING")),
    ]
    await asyncio.sleep(0)
    await bus.redis.client_kill_filter(_id=number)
    for one in waiting:
        with pytest.raises(ConnectionLost):
            await one
    assert await line.one(b"PING") == b"PONG"
    line.close()


async def test_an_answer_that_never_comes_is_not_waited_for(bus: Bus) -> None:
    line = Line(bus.redis.connection_pool, 0.05)
    with pytest.raises(NotAnswered):
        await line.one(b"BLPOP", "nothing", 5)
    assert await line.one(b"PING") == b"PONG"
    line.close()


async def test_a_server_that_is_not_there_is_an_error_of_the_connection() -> None:
    nobody = Bus("redis://127.0.0.1:1")
    with pytest.raises(ConnectionLost):
        await nobody.line.one(b"PING")
    await nobody.close()


async def test_a_woken_reader_gets_what_all_streams_got(bus: Bus) -> None:
    """Redis wakes a reader with one stream only; the rest would be a batch of its own."""
    reading = asyncio.ensure_future(bus.read({"a": "0-0", "b": "0-0", "c": "0-0"}, 10, 2_000))

    async def waits() -> bool:
        return any("xread" in one["cmd"] for one in await bus.redis.client_list())

    await until(waits)
    await bus.redis.eval(
        "for i = 1, 3 do redis.call('XADD', KEYS[i], '*', 'message', KEYS[i]) end", 3, "a", "b", "c"
    )
    assert {key: [m for _, m in got] for key, got in (await reading).items()} == {
        "a": [b"a"],
        "b": [b"b"],
        "c": [b"c"],
    }
