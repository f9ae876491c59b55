"""Hundreds of simulated runs, each from one seed: nothing is lost, doubled or stuck (R14, R33).

Repeat a run that failed:  python -m tests.simulation SEED
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.processes import ROOT
from tests.simulation.seeds import KEPT
from tests.simulation.world import MOMENTS, simulate

SEEDS = 300
LONG_SEEDS = 10_000

SEEN = (
    *("killed", "frozen", "stopped in order", "flushed", "mirror lost entries"),
    *("log away", "bus away", "commit unknown, done", "commit unknown, lost"),
    *("fenced", "duplicates", "unknown commits", "gap fall-backs", "asked again"),
    *("mirrored again", "taken over", "redelivered", "answered from memory"),
    *("refused LATE_ANSWER", "refused NOT_YOURS", "TaskTakenOver", "TaskTimedOut"),
    *("CompensationParked", "ExecutionRetried", "InputProvided"),
)
"""What must have happened in a set of runs: else it proves nothing."""


def repeat(seed: int, violations: list[str]) -> str:
    """What is said of a run that failed."""
    return "\n".join([f"python -m tests.simulation {seed}", *violations])


def run_all(seeds: Iterable[int]) -> Counter[str]:
    """Run them; fails with all that is wrong, and returns what was seen."""
    seen: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        try:
            result = simulate(seed)
        except Exception as error:  # a deadlock, or a bug in the loops
            failed.append(repeat(seed, [repr(error)]))
            continue
        seen += result.seen
        if result.violations:
            failed.append(repeat(seed, result.violations))
    assert not failed, "\n\n".join(failed)
    return seen


def test_nothing_is_lost_doubled_or_stuck_whatever_the_seed():
    seen = run_all(range(SEEDS))
    assert not [what for what in SEEN if not seen[what]], seen
    for how in ("died", "slept"):
        never = [moment for moment in MOMENTS if not seen[f"{how} at {moment}"]]
        assert not never, f"nobody {how} at {never}"


@pytest.mark.sim_long
def test_nothing_is_lost_doubled_or_stuck_in_ten_thousand_runs():
    seen = run_all(range(SEEDS, SEEDS + LONG_SEEDS))
    print({what: seen[what] for what in SEEN})


def test_what_once_went_wrong_does_not_go_wrong_again():
    run_all(KEPT)


def test_a_seed_decides_everything():
    first, second, other = simulate(7), simulate(7), simulate(8)
    assert first == second
    assert first.history != other.history


def test_a_seed_decides_the_same_in_another_process():
    """Whatever that process makes of hashes."""
    said = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1, said
