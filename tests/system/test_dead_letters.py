"""Dead letters on a running engine: kept once, looked at, tried again, or given up (R32, I20)."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from processors import commands, dead_letters, letter_carrier
from processors.client import Rejected
from processors.dead_letters import Filter
from processors.settings import Addresses
from streams.codec import encode_command
from streams.message import Command
from streams.partition import COMMANDS_INBOX, commands_key
from tests.system.engine import Engine, an_id, engine, until

CONSTRAINT = "ALTER TABLE events ADD CONSTRAINT planted CHECK (message::text NOT LIKE '%MARKED%')"
GONE = "ALTER TABLE events DROP CONSTRAINT planted"
PARTITION = 9


@pytest.fixture
def addresses(database: str, redis_url: str) -> Addresses:
    return Addresses(database, redis_url)


@pytest.fixture
async def on(addresses: Addresses) -> AsyncIterator[Engine]:
    async with engine(addresses) as made:
        yield made


async def letters(pool: asyncpg.Pool, count: int, **wanted: Any) -> list[dead_letters.Letter]:
    """So many letters that a filter finds."""

    async def found() -> list[dead_letters.Letter] | None:
        some = await dead_letters.find(pool, Filter(**wanted), limit=1_000)
        return some if len(some) == count else None

    return await until(found, f"{count} letters of {wanted}")  # type: ignore[return-value]


def marked() -> Command:
    """A command that the database refuses while the constraint is there."""
    made = commands.register_agent(an_id("agent", PARTITION), name="MARKED", roles=["r"])
    made.actor, made.tenant = "ann", "acme"
    return made


async def refused(on: Engine, count: int) -> list[Command]:
    """So many commands that the database has refused, each with its letter."""
    await on.pool.execute(CONSTRAINT)
    said = [marked() for _ in range(count)]
    key = commands_key(PARTITION)
    await on.client.bus.append({key: [encode_command(one) for one in said]})
    await letters(on.pool, count)
    return said


async def took_effect(pool: asyncpg.Pool, command: Command) -> bool:
    query = "SELECT count(*) FROM events WHERE subject = $1 AND type = 'AgentRegistered'"
    count = await pool.fetchval(query, command.subject)
    assert count <= 1, "I4"
    return bool(count)


async def test_what_the_database_refuses_is_told_kept_and_tried_again_when_the_cause_is_gone(
    on: Engine,
) -> None:
    """R32, F32, I20."""
    await on.pool.execute(CONSTRAINT)
    said = marked()
    with pytest.raises(Rejected) as rejected:
        await on.client.call(said)
    assert rejected.value.problem["code"] == "UNACCEPTABLE"
    [found] = await letters(on.pool, 1)
    letter = await dead_letters.show(on.pool, found.id[:8])
    assert orjson.loads(letter.raw)["id"] == said.id
    assert (letter.tenant, letter.subject, letter.status) == ("acme", said.subject, "open")
    await on.pool.execute(GONE)
    await dead_letters.decide(on.client, letter, "retry", "the constraint is gone", "bob")
    await until(lambda: took_effect(on.pool, said), "the command")
    [decided] = await letters(on.pool, 1, status="retried")
    assert (decided.tries, decided.decided_by) == (1, "bob")
    assert decided.decided_why == "the constraint is gone"
    trail = await on.pool.fetch(
        "SELECT type, tenant, actor, data FROM audit WHERE subject = $1", f"dead_letter/{letter.id}"
    )
    assert [(row["type"], row["tenant"], row["actor"]) for row in trail] == [
        ("DeadLetterRetried", "acme", "bob")
    ]


async def test_two_who_retry_the_same_letter_do_it_once_and_one_that_took_effect_takes_none(
    on: Engine,
) -> None:
    """R32, R33, I4."""
    [said] = await refused(on, 1)
    await on.pool.execute(GONE)
    [letter] = await letters(on.pool, 1)
    await asyncio.gather(
        *(dead_letters.decide(on.client, letter, "retry", "fixed", f"p{n}") for n in range(5))
    )
    await until(lambda: took_effect(on.pool, said), "the command")
    count = "SELECT count(*) FROM events WHERE type = 'DeadLetterRetried'"
    assert await on.pool.fetchval(count) == 1
    [letter] = await letters(on.pool, 1, status="retried")
    await dead_letters.decide(on.client, letter, "retry", "to be sure", "p9")

    async def carried() -> bool:
        [again] = await letters(on.pool, 1, status="retried")
        return again.tries == 2 and not again.due

    await until(carried, "the second attempt")
    assert await took_effect(on.pool, said)


async def test_a_letter_that_was_given_up_is_not_tried_again(on: Engine) -> None:
    """R32."""
    await refused(on, 1)
    [letter] = await letters(on.pool, 1)
    await dead_letters.decide(on.client, letter, "discard", "a test", "ann")
    await letters(on.pool, 1, status="discarded")
    with pytest.raises(Rejected) as rejected:
        await dead_letters.decide(on.client, letter, "retry", "oh", "ann")
    assert rejected.value.problem["code"] == "DEAD_LETTER_DISCARDED"


async def test_a_walk_over_many_that_is_interrupted_goes_on_where_it_was(on: Engine) -> None:
    """R32: throttled, resumable, each one its own event; only what the filter finds."""
    said = await refused(on, 12)
    poison = b"not json"
    await on.client.bus.append({COMMANDS_INBOX: [poison]})
    [other] = await letters(on.pool, 1, reason="INVALID_JSON")
    await on.pool.execute(GONE)
    wanted = Filter(kind="command", reason="planted")
    walk = dead_letters.decide_many(on.client, wanted, "retry", "fixed", "ann")
    for _ in range(5):
        assert (await anext(walk)).problem is None
    await walk.aclose()
    await letters(on.pool, 7, reason="planted")
    rest = [one async for one in dead_letters.decide_many(on.client, wanted, "retry", "so", "ann")]
    assert len(rest) == 7
    for one in said:
        await until(lambda one=one: took_effect(on.pool, one), "the command")  # type: ignore[misc]
    count = "SELECT count(*) FROM events WHERE type = 'DeadLetterRetried'"
    assert await on.pool.fetchval(count) == 12
    assert [one.id for one in await letters(on.pool, 1)] == [other.id]


async def test_a_walk_keeps_its_rate(on: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """R32: as much as it is told to, and not a decision faster."""
    await refused(on, 4)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)  # and no time passes

    monkeypatch.setattr(dead_letters, "sleep", sleep)
    walk = dead_letters.decide_many(on.client, Filter(), "discard", "a test", "ann", rate=0.1)
    assert [one.problem async for one in walk] == [None] * 4
    spans = [after - before for before, after in itertools.pairwise(waited)]
    assert [round(span / 10) for span in spans] == [1, 1, 1], "ten seconds after each"


async def test_decisions_survive_the_death_of_who_would_carry_them_out(
    addresses: Addresses,
) -> None:
    """R32, F6: the table is the queue."""
    async with engine(addresses, roles=("commands",)) as on:
        [said] = await refused(on, 1)
        await on.pool.execute(GONE)
        [letter] = await letters(on.pool, 1)
        await dead_letters.decide(on.client, letter, "retry", "fixed", "ann")
        assert not await took_effect(on.pool, said)
    async with engine(addresses) as on:
        await until(lambda: took_effect(on.pool, said), "the command")


async def test_an_outage_of_redis_leaves_a_decision_due(on: Engine) -> None:
    """F12, F16: it is carried out when there is a Redis again."""
    [said] = await refused(on, 1)
    await on.pool.execute(GONE)
    [letter] = await letters(on.pool, 1)
    await on.feed("projections").worker.carrier.stop()
    await dead_letters.decide(on.client, letter, "retry", "fixed", "ann")
    [letter] = await letters(on.pool, 1, status="retried")
    broken = letter_carrier.LetterCarrier(on.worker.log, _Away())  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await broken.round()
    [letter] = await letters(on.pool, 1, status="retried")
    assert letter.due
    assert await letter_carrier.LetterCarrier(on.worker.log, on.worker.bus).round() == 1
    await until(lambda: took_effect(on.pool, said), "the command")


class _Away:
    """A Redis that does not answer."""

    async def append(self, messages: Any) -> None:
        raise TimeoutError


# The command line -------------------------------------------------------------------------------


async def cli(addresses: Addresses, *arguments: str, code: int = 0) -> str:
    """What `orchestrator dead-letters …` prints, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processors", "dead-letters", *arguments),
        env=os.environ | addresses.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, mistakes = await process.communicate()
    assert process.returncode == code, mistakes.decode()
    return said.decode()


async def test_the_command_line_lists_shows_retries_and_discards(
    on: Engine, addresses: Addresses
) -> None:
    """R32, R54."""
    hostile = b"\x1b[31mred\xff\x00" + b"x" * 5_000
    [said] = await refused(on, 1)
    await on.client.bus.append({COMMANDS_INBOX: [hostile]})
    await letters(on.pool, 2)
    listed = orjson.loads(await cli(addresses, "list", "--json"))
    assert [one["kind"] for one in listed] == ["command", "command"]
    poison = next(one for one in listed if one["bytes"] == len(hostile))
    planted = next(one for one in listed if one is not poison)
    assert await cli(addresses, "list", "--older-than", "1h") == ""
    assert planted["id"][:12] in await cli(addresses, "list", "--tenant", "acme")
    shown = await cli(addresses, "show", poison["id"][:10])
    assert "\x1b" not in shown
    assert "1b 5b 33 31 6d" in shown, "what is no text is shown as it is"
    assert len(shown) < 20_000
    assert said.id in await cli(addresses, "show", planted["id"])
    await cli(addresses, "retry", planted["id"], code=2)  # without a why
    await cli(addresses, "discard", "--why", "x", code=2)  # on nothing
    await cli(addresses, "show", "nosuch", code=1)
    assert "discarded" not in await cli(addresses, "list", "--status", "discarded")
    await cli(addresses, "discard", poison["id"], "--why", "noise", "--by", "ann")
    await on.pool.execute(GONE)
    done = await cli(addresses, "retry", "--kind", "command", "--why", "fixed", "--yes", "--json")
    assert [one["id"] for one in orjson.loads(done)][-1:] == [planted["id"]]
    await until(lambda: took_effect(on.pool, said), "the command")
    [letter] = await letters(on.pool, 1, status="discarded")
    assert (letter.decided_by, letter.decided_why) == ("ann", "noise")
    await cli(addresses, "retry", poison["id"], "--why", "oh", code=1)
