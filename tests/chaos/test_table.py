"""The table of faults names what there is: tests, files, actions and moments; and all 52 faults."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.moments import AGENT_MOMENTS, WORKER_MOMENTS
from tests.chaos.nemesis import ACTIONS

HERE = Path(__file__).parent
TABLE = (HERE / "README.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|(.*)$", TABLE, re.MULTILINE)
FAULTS = 52
LATER = {39, 45}
"""Hooks and rebuilds beside the old table are not there yet."""


def test_every_fault_is_there_and_says_where_it_is_covered() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, FAULTS + 1))
    assert {int(number) for number, row in ROWS if "| later step" in row} == LATER


def test_every_named_test_file_action_and_moment_exists() -> None:
    sources = {path: path.read_text() for path in HERE.parent.rglob("test_*.py")}
    for name in re.findall(r"`(test_\w+)`", TABLE):
        assert any(f"def {name}(" in text for text in sources.values()), name
    for name in re.findall(r"`(test_\w+)_…`", TABLE):
        assert any(f"def {name}_" in text for text in sources.values()), name
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", TABLE):
        assert (HERE.parent / name.removeprefix("tests/")).exists(), name
    for name in re.findall(r"`(\w+\.py)`", TABLE):
        assert (HERE / name).exists(), name
    for name in re.findall(r"(?<!\*)\*(\w+)\*(?!\*)", "".join(row for _, row in ROWS)):
        assert name in ACTIONS, name
    for names in re.findall(r"[Cc]rash points? ((?:\"[^\"]+\"(?:, )?)+)", TABLE):
        for name in re.findall(r"\"([^\"]+)\"", names):
            assert name in (*WORKER_MOMENTS, *AGENT_MOMENTS), name
