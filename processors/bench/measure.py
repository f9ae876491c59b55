"""Seconds on the clock and seconds of CPU, of this process and of others by their /proc entries.

The heap is made quiet before a measurement, as `processors.worker` makes its own.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processors.worker import GC_ALLOCATIONS

OURSELVES = 0
"""In place of a process id: this process without its children, among which are the servers."""

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_AGREE_S = 3 / _TICKS_A_SECOND
_PARENT, _OWN, _REAPED = 1, slice(11, 13), slice(13, 15)  # of /proc/<pid>/stat, after the name


@dataclass(slots=True)
class Run:
    """What one measured stretch took; CPU seconds by process, where they could be read."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)


class Stretch:
    """Begins to measure when it is made; `processes` are ids by name, None where out of sight."""

    def __init__(self, processes: Mapping[str, int | None]) -> None:
        self._visible = {name: pid for name, pid in processes.items() if pid is not None}
        self._before = {name: cpu_seconds(pid) for name, pid in self._visible.items()}
        self._began = time.perf_counter()

    def end(self) -> Run:
        """What it took until now."""
        seconds = time.perf_counter() - self._began
        visible, before = self._visible.items(), self._before
        return Run(seconds, {name: cpu_seconds(pid) - before[name] for name, pid in visible})


@contextmanager
def measured(processes: Mapping[str, int | None]) -> Iterator[Run]:
    """Measure the block, with a quiet heap."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    run, stretch = Run(), Stretch(processes)
    try:
        yield run
    finally:
        done = stretch.end()
        run.seconds, run.cpu = done.seconds, done.cpu
        gc.unfreeze()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it, also of those that have ended."""
    if pid == OURSELVES:
        return time.process_time()
    stats = _stats()
    tree, found = {pid}, -1
    while len(tree) != found:
        found = len(tree)
        tree |= {child for child, fields in stats.items() if int(fields[_PARENT]) in tree}
    reaped = _seconds(stats[pid][_REAPED]) if pid in stats else 0.0
    return reaped + sum(_own_seconds(child, stats[child]) for child in tree if child in stats)


def _own_seconds(pid: int, fields: list[str]) -> float:
    """Of one process: by the nanosecond where its threads say so and agree with its ticks."""
    ticks = _seconds(fields[_OWN])
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
        exact = sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    except (OSError, IndexError, ValueError):
        return ticks
    return exact if abs(exact - ticks) < _AGREE_S else ticks  # threads that ended are in ticks only


def _seconds(ticks: list[str]) -> float:
    return sum(map(int, ticks)) / _TICKS_A_SECOND


def children() -> dict[int, str]:
    """The command lines of our own children, by process id."""
    found = {}
    for pid, fields in _stats().items():
        if int(fields[_PARENT]) == os.getpid():
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
            found[pid] = raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return found


def _stats() -> dict[int, list[str]]:
    """The fields after the name of every process; nothing where there is no /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue  # it has ended meanwhile
        found[int(entry.name)] = text.rpartition(")")[2].split()
    return found
