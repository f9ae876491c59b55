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
_PARENT, _OWN, _REAPED = 1, slice(11, 13), slice(13, 15)  # of /proc/<pid>/stat, after the name


@dataclass(slots=True)
class Run:
    """What one measured stretch took; CPU seconds by process, where they could be read."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)


@contextmanager
def measured(processes: Mapping[str, int | None]) -> Iterator[Run]:
    """Measure the block; `processes` are ids by name, None where the process is out of sight."""
    visible = {name: pid for name, pid in processes.items() if pid is not None}
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    run = Run()
    before = {name: cpu_seconds(pid) for name, pid in visible.items()}
    began = time.perf_counter()
    try:
        yield run
    finally:
        run.seconds = time.perf_counter() - began
        run.cpu = {name: cpu_seconds(pid) - before[name] for name, pid in visible.items()}
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
    parts = [fields[_OWN] for child, fields in stats.items() if child in tree]
    parts += [stats[pid][_REAPED]] if pid in stats else []
    return sum(int(ticks) for part in parts for ticks in part) / _TICKS_A_SECOND


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
