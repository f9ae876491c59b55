"""Pages of history: nothing is left out or said twice, and no page is larger than it may be."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from processors import history as module
from processors.history import History
from streams.log import WRITER
from streams.logs.postgres import PostgresLog

INSERT = """
INSERT INTO events (partition, position, type, subject, message) VALUES ($1, $2, $3, $4, $5)
"""
HEAD = "UPDATE cursors SET position = $2 WHERE consumer = 'commands' AND partition = $1"
EVENTS, LARGE, SMALL = 60, 5_000, 10


@pytest.fixture
async def log(database: str) -> AsyncIterator[PostgresLog]:
    """Two partitions of events, among which some are large and one is larger than any page."""
    made = PostgresLog(database)
    await made.open()
    await made.cursors(WRITER)
    rows = []
    for partition in (0, 1):
        for position in range(1, EVENTS + 1):
            size = LARGE if position % 7 == 0 else SMALL
            said = {"position": position, "time": f"{position:04}", "data": "ü" * size}
            subject = f"thing/{'ab'[position % 2]}"
            rows.append((partition, position, "Done", subject, orjson.dumps(said)))
        await made.pool.execute(HEAD, partition, EVENTS)
    await made.pool.executemany(INSERT, rows)
    yield made
    await made.close()


@pytest.mark.parametrize(("partitions", "subject"), [([0], None), ([0], "thing/a"), ([0, 1], None)])
@pytest.mark.parametrize("page_bytes", [1, 25_000, 10_000_000])
async def test_pages_are_bounded_by_bytes(
    log: PostgresLog,
    monkeypatch: pytest.MonkeyPatch,
    partitions: list[int],
    subject: str | None,
    page_bytes: int,
) -> None:
    """8,000 events of a megabyte would be 8 GB."""
    monkeypatch.setattr(module, "PAGE_BYTES", page_bytes)
    pages = [page async for page in History(log, dict.fromkeys(partitions, 0), subject).pages()]
    step = 1 if subject is None else 2
    for partition in partitions:
        found = [row.position for page in pages for row in page if row.partition == partition]
        assert found == list(range(step, EVENTS + 1, step))
    largest = max(len(row.message) for page in pages for row in page)
    for page in pages:
        assert sum(len(row.message) for row in page) < page_bytes + largest * len(partitions)
    assert (len(pages) == 1) == (page_bytes == 10_000_000)
