"""Children are started again when they end, given up in the end, and never outlive us."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from processors import supervisor as module
from processors.supervisor import ChildFailed, Supervisor
from tests.processes import is_gone

UP_S_MAX = 20.0  # a Python that imports what a command needs, on a busy machine


async def test_a_child_that_never_stays_up_is_given_up_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)
    reports: list[str] = []
    async with Supervisor({}, tmp_path, restarts_max=2, report=reports.append) as supervisor:
        supervisor.start("confused", "explode")
        with pytest.raises(ChildFailed, match="No such command 'explode'"):
            await asyncio.wait_for(supervisor.failed(), UP_S_MAX)
    assert [report.rpartition(" in ")[2] for report in reports] == ["0.01 s.", "0.02 s."]


async def test_a_child_that_ended_comes_back_and_none_outlives_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)
    ended = asyncio.Event()
    async with Supervisor({}, tmp_path, report=lambda _: ended.set()) as supervisor:
        supervisor.start("brief", "validate", "-")  # its input is empty: that is refused
        first = await _pid(supervisor)
        await asyncio.wait_for(ended.wait(), UP_S_MAX)
        second = await _pid(supervisor, first)
    assert is_gone(first)
    assert is_gone(second)


async def _pid(supervisor: Supervisor, other_than: int = 0) -> int:
    """The process id of the only child, once it has one that is not `other_than`."""
    [child] = supervisor._children
    async with asyncio.timeout(UP_S_MAX):
        while child.process is None or child.process.pid == other_than:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return child.process.pid
