"""The promise of `streams.log`, kept by the real log and by the one in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import orjson
import pytest

from streams.chain import verify, verify_all
from streams.log import (
    WRITER,
    Cursor,
    DeadLetter,
    DefinitionRow,
    ParkedKey,
    Share,
    SnapshotRow,
)
from streams.logs.memory import MemoryLog
from streams.logs.postgres import PostgresLog

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
async def memory_log():
    return MemoryLog()


@pytest.fixture
async def postgres_log(database):
    log = PostgresLog(database)
    await log.open()
    yield log
    await log.close()


@pytest.fixture(params=["memory_log", "postgres_log"])
def log(request):
    return request.getfixturevalue(request.param)


def event(partition: int, position: int, subject: str = "thing/a") -> bytes:
    return orjson.dumps(
        {"partition": partition, "position": position, "type": "Done", "subject": subject}
    )


def share(cursor: Cursor, count: int, **changes) -> Share:
    """A share of `count` events for a cursor that we hold."""
    made = Share(
        cursor.partition,
        changes.pop("epoch", cursor.epoch),
        cursor.position,
        cursor.commits + 1,
        cursor.hash,
        types=["Done"] * count,
        subjects=["thing/a"] * count,
        messages=[event(cursor.partition, cursor.position + 1 + i) for i in range(count)],
        commands=[(f"c{cursor.partition}-{cursor.position + 1 + i}", 1) for i in range(count)],
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


async def mine(log, partition: int = 0, owner: str = "me") -> Cursor:
    """The partition's cursor, freshly taken."""
    seen = (await log.cursors(WRITER))[partition]
    [taken] = await log.take([seen], owner)
    return taken


async def test_a_cursor_is_made_for_every_partition(log):
    cursors = await log.cursors("reader")
    assert [c.partition for c in cursors] == list(range(await log.partitions()))
    assert all((c.position, c.epoch, c.owner) == (0, 0, None) for c in cursors)


async def test_taking_raises_the_epoch_and_needs_the_cursor_unmoved(log):
    seen = (await log.cursors(WRITER))[3]
    [taken] = await log.take([seen], "a")
    assert (taken.owner, taken.epoch, taken.beat) == ("a", 1, 0)
    assert await log.take([seen], "b") == []
    assert await log.beat(WRITER, {3: 1}) == {3}
    assert await log.take([taken], "b") == [], "it has beaten since it was seen"


async def test_releasing_frees_only_what_is_held(log):
    cursor = await mine(log)
    await log.release(WRITER, {0: cursor.epoch - 1})
    assert (await log.cursors(WRITER))[0].owner == "me"
    await log.release(WRITER, {0: cursor.epoch})
    assert (await log.cursors(WRITER))[0].owner is None
    assert await log.append([share(cursor, 1)], NOW) == set(), "a released lease writes nothing"


async def test_members_of_a_consumer_see_each_other_beat(log):
    assert await log.meet("reader", "a") == {"a": 1}
    assert await log.meet("reader", "b") == {"a": 1, "b": 1}
    assert await log.meet("reader", "a") == {"a": 2, "b": 1}
    assert await log.meet("other", "c") == {"c": 1}, "each consumer has its own"


async def test_only_members_that_have_not_beaten_since_are_dismissed(log):
    for member in ("a", "b", "a"):
        seen = await log.meet("reader", member)
    await log.dismiss("reader", {"a": seen["a"] - 1, "b": seen["b"], "c": 1})
    await log.dismiss("other", {"a": seen["a"]})
    assert await log.meet("reader", "a") == {"a": 3}
    assert await log.meet("reader", "b") == {"a": 3, "b": 1}, "who was only slow begins again"


async def test_who_leaves_is_no_member_and_owns_nothing_at_once(log):
    """F24: and releases nothing that was taken from it meanwhile."""
    assert not await log.free(WRITER), "nothing is there yet"
    cursors = await log.take(await log.cursors(WRITER), "a")
    await log.meet(WRITER, "a")
    await log.meet(WRITER, "b")
    assert not await log.free(WRITER)
    [taken] = await log.take([cursors[3]], "b")
    await log.leave(WRITER, "a", {c.partition: c.epoch for c in cursors})
    assert await log.free(WRITER)
    owners = [c.owner for c in await log.cursors(WRITER)]
    assert owners == [None if p != taken.partition else "b" for p in range(len(owners))]
    assert await log.meet(WRITER, "b") == {"b": 2}
    await log.leave(WRITER, "b", {})
    assert (await log.cursors(WRITER))[3].owner == "b", "only what it names"
    assert await log.meet(WRITER, "c") == {"c": 1}


async def test_members_that_meet_at_once_all_count(log):
    await asyncio.gather(*(log.meet("reader", f"m{n % 4}") for n in range(40)))
    assert await log.meet("reader", "m0") == {"m0": 11, "m1": 10, "m2": 10, "m3": 10}


@pytest.mark.parametrize("count", [0, 1, 7, 200, 5_000])
async def test_a_commit_moves_head_cursor_and_chain_together(log, count):
    cursor = await mine(log)
    made = share(cursor, count, stream_offset="17-3", incarnation="run")
    assert await log.append([made], NOW) == {0}
    after = (await log.cursors(WRITER))[0]
    assert (after.position, after.commits, after.hash) == (count, 1, made.hash)
    assert (after.stream_offset, after.incarnation) == ("17-3", "run")
    stored = await log.read(0, 0, 10_000)
    assert [e.position for e in stored] == list(range(1, count + 1))
    assert [e.message for e in stored] == made.messages
    [commit] = await log.commits(0, 0, 10)
    assert (commit.number, commit.first, commit.last) == (1, 1, count)
    assert commit.time == NOW
    assert commit.commands == made.commands
    assert (await verify(log, 0)).ok


async def test_an_older_epoch_writes_nothing(log):
    old = await mine(log, owner="old")
    new = await mine(log, owner="new")
    assert await log.append([share(old, 3)], NOW) == set()
    assert await log.append([share(old, 200)], NOW) == set()
    assert await log.append([share(new, 2)], NOW) == {0}
    assert len(await log.read(0, 0, 100)) == 2


async def test_a_commit_at_the_wrong_head_writes_nothing(log):
    cursor = await mine(log)
    assert await log.append([share(cursor, 1)], NOW) == {0}
    assert await log.append([share(cursor, 1)], NOW) == set()
    assert [e.position for e in await log.read(0, 0, 100)] == [1]


async def test_a_lost_partition_falls_out_and_the_others_commit(log):
    kept, lost = await mine(log, 1), await mine(log, 2)
    await mine(log, 2, owner="other")
    for count in (2, 200):
        kept = (await log.cursors(WRITER))[1]
        assert await log.append([share(kept, count), share(lost, count)], NOW) == {1}
    assert len(await log.read(1, 0, 1000)) == 202
    assert await log.read(2, 0, 10) == []
    assert (await verify(log, 1)).ok
    assert (await verify(log, 2)).ok


async def test_readers_move_their_own_cursors_under_their_own_lease(log):
    writer = await mine(log, 5)
    assert await log.append([share(writer, 42)], NOW) == {5}
    [cursor] = await log.take([(await log.cursors("reader"))[5]], "me")
    assert await log.advance("reader", [(5, cursor.epoch, 43)]) == set(), "ahead of the log"
    assert await log.advance("reader", [(5, cursor.epoch, 42)]) == {5}
    assert await log.advance("reader", [(5, cursor.epoch - 1, 43)]) == set()
    assert (await log.cursors("reader"))[5].position == 42


async def test_recent_commits_cover_as_many_commands_as_asked(log):
    cursor = await mine(log)
    for count in (3, 2, 4):
        await log.append([share(cursor, count)], NOW)
        cursor = (await log.cursors(WRITER))[0]
    assert [c.number for c in await log.recent(0, 4)] == [3]
    assert [c.number for c in await log.recent(0, 5)] == [2, 3]
    assert [c.number for c in await log.recent(0, 100)] == [1, 2, 3]


async def test_definitions_are_kept_with_the_commit_that_names_them(log):
    cursor = await mine(log)
    rows = [DefinitionRow("w", r, "t", f"d{r}", False, b'{"n":%d}' % r) for r in (1, 2)]
    lost = share(cursor, 1, epoch=0, definitions=[rows[0]])
    assert await log.append([lost], NOW) == set()
    assert await log.definitions([("w", 1)]) == []
    await log.append([share(cursor, 1, definitions=rows)], NOW)
    assert await log.definitions([("w", 1)]) == [rows[0]]
    assert await log.definitions([("w", 0), ("x", 0), ("w", 9)]) == [rows[1]]
    cursor = (await log.cursors(WRITER))[0]
    both = {"definitions": [DefinitionRow("w", 3, "t", "c", False, b"{}")], "archived": ["w"]}
    await log.append([share(cursor, 1, **both)], NOW)
    assert [row.archived for row in await log.definitions([("w", 1), ("w", 3)])] == [True, True]
    assert [row.archived for row in await log.definitions([("w", 1), ("w", 2)])] == [True, True]


async def test_snapshots_are_saved_under_the_lease(log):
    cursor = await mine(log)
    assert await log.save(cursor, 7, [SnapshotRow("thing/a", 3, b'{"x": 1}')])
    assert (await log.load(WRITER, ["thing/a", "thing/b"])) == {
        "thing/a": SnapshotRow("thing/a", 3, b'{"x": 1}')
    }
    assert (await log.cursors(WRITER))[0].snapshot == 7
    await mine(log, owner="other")
    assert not await log.save(cursor, 9, [SnapshotRow("thing/a", 4, b"{}")])
    assert (await log.load(WRITER, ["thing/a"]))["thing/a"].version == 3
    assert (await log.cursors(WRITER))[0].snapshot == 7


async def test_what_cannot_be_handled_is_kept_once(log):
    letter = DeadLetter("command", "commands:{1}", "1-0", "why", b"\x00\xff")
    await log.bury([letter, letter._replace(entry="2-0")])
    await log.bury([letter])
    if isinstance(log, PostgresLog):
        assert await log.pool.fetchval("SELECT count(*) FROM dead_letters") == 2
        assert await log.pool.fetchval("SELECT raw FROM dead_letters LIMIT 1") == b"\x00\xff"
    else:
        assert len(log.dead_letters) == 2


async def test_a_parked_key_is_kept_and_forgotten_together_with_the_states(log):
    """R32: a reader whose lease is lost forgets nothing."""
    key = ParkedKey("reader", 0, "thing/a", 7)
    letter = DeadLetter("event", "reader", "0-7", "why", b"{}", "default", "thing/a")
    await log.park(key, letter)
    await log.park(key._replace(subject="thing/b"), letter._replace(entry="0-8"))
    await log.park(key._replace(position=9), letter._replace(entry="0-9"))
    assert await log.parked(["another"], 0) == await log.parked(["reader"], 1) == []
    found = sorted(await log.parked(["reader", "another"], 0))
    assert found == [key._replace(position=9), key._replace(subject="thing/b")]
    cursor = await mine(log)
    row = SnapshotRow("thing/a", 3, b"{}")
    assert await log.unpark(cursor, 7, [row], key)
    assert await log.parked(["reader"], 0) == [key._replace(subject="thing/b")]
    assert await log.load(WRITER, ["thing/a"]) == {"thing/a": row}
    assert (await log.cursors(WRITER))[0].snapshot == 7
    await mine(log, owner="other")
    assert not await log.unpark(cursor, 8, [row], key._replace(subject="thing/b"))
    assert len(await log.parked(["reader"], 0)) == 1


async def test_the_history_of_one_subject_comes_in_pages(log):
    cursor = await mine(log)
    subjects = ["thing/a", "thing/b"] * 5
    made = share(cursor, 10, subjects=subjects)
    await log.append([made], NOW)
    first = await log.history(0, "thing/b", 0, 3)
    rest = await log.history(0, "thing/b", first[-1].position, 100)
    assert [one.position for one in (*first, *rest)] == [2, 4, 6, 8, 10]
    assert await log.history(1, "thing/b", 0, 3) == []
    if isinstance(log, PostgresLog):  # what a read model knows of the begin is believed
        await log.pool.execute("INSERT INTO histories VALUES ('thing/b', 0, 4, 6)")
        assert [one.position for one in await log.history(0, "thing/b", 0, 2)] == [4, 6]


async def test_eight_writers_that_fight_for_leases_leave_no_hole(log):
    """R33, I1, I5, I6: positions are 1..n whoever held the lease, and the chain is whole."""
    target, partitions = 300, 2
    written: list[int] = []

    async def writer(name: str, generator: int) -> None:
        turn = generator
        while sum(written) < target:
            turn += 1
            cursor = (await log.cursors(WRITER))[turn % partitions]
            if turn % 3 and cursor.owner == name:
                held = [cursor]
            else:
                held = await log.take([cursor], name)
            for won in held:
                count = 1 + turn % 5
                if await log.append([share(won, count)], NOW):
                    written.append(count)
            await asyncio.sleep(0)

    await asyncio.gather(*(writer(f"w{i}", i) for i in range(8)))
    total = 0
    for partition in range(partitions):
        positions = [e.position for e in await log.read(partition, 0, 10_000)]
        assert positions == list(range(1, len(positions) + 1))
        commits = await log.commits(partition, 0, 10_000)
        assert [c.epoch for c in commits] == sorted(c.epoch for c in commits)
        report = await verify(log, partition)
        assert report.ok, report
        total += len(positions)
    assert total == sum(written)


@pytest.mark.parametrize(
    ("damage", "position", "word"),
    [
        ("UPDATE events SET message = (message::text || ' ')::json WHERE position = 3", 3, "hash"),
        ("UPDATE events SET type = 'Dome' WHERE position = 4", 4, "columns"),
        ("UPDATE events SET subject = 'thing/b' WHERE position = 4", 4, "columns"),
        ("DELETE FROM events WHERE position = 2", 2, "missing"),
        ("DELETE FROM events WHERE position = 6", 6, "missing"),
        ("DELETE FROM commits WHERE number = 2", 4, "head"),
        ("DELETE FROM commits WHERE number = 1", 1, "commit 1"),
        ("UPDATE commits SET time = time + interval '1 s' WHERE number = 1", 1, "hash"),
        ("DELETE FROM commits WHERE number = 2; DELETE FROM events WHERE position > 3", 4, "head"),
    ],
)
async def test_verify_finds_what_was_changed(database, monkeypatch, damage, position, word):
    """R55: a changed byte is found, with its position, wherever the pages of the reading end."""
    log = PostgresLog(database)
    await log.open()
    cursor = await mine(log)
    await log.append([share(cursor, 3)], NOW)
    await log.append([share((await log.cursors(WRITER))[0], 3)], NOW)
    assert [one.ok for one in await verify_all(log, [1, 0])] == [True, True]
    await log.pool.execute(damage)
    report = await verify(log, 0)
    monkeypatch.setattr("streams.chain.PAGE_EVENTS", 2)
    assert await verify_all(log, [0]) == [report]
    await log.close()
    assert not report.ok
    assert report.position == position
    assert word in (report.reason or "")
