"""What the agents of a measurement noted, read back: who got which task when."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path

import orjson

from processors.cli.exits import Failed

WAIT_S_MAX = 10.0  # agents write within a twentieth of a second
POLL_S = 0.02


class Notes:
    """The file of one crew; each note is read once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._at = 0
        self._read: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)

    async def take(
        self, executions: Iterable[str], tasks: int
    ) -> dict[str, dict[str, tuple[int, int]]]:
        """Per execution and task the agent and the nanosecond; waits for so many tasks of each.

        Raises Failed where notes are missing. Of a task that was given out twice the first counts.
        """
        wanted = set(executions)
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while any(len(self._read[one]) < tasks for one in wanted):
                    self._look()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            missing = sum(tasks - len(self._read[one]) for one in wanted)
            raise Failed(f"The agents have not noted {missing:,} tasks that completed.") from None
        return {one: self._read.pop(one) for one in wanted}

    def _look(self) -> None:
        if not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(self._at)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._at += len(lines) + len(newline)
        for line in lines.splitlines():
            for execution, task, agent, moment in orjson.loads(line):
                self._read[execution].setdefault(task, (agent, moment))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
