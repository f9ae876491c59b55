"""Repeat one simulated run:  python -m tests.simulation SEED"""

from __future__ import annotations

import sys

from tests.simulation.world import simulate

if __name__ == "__main__":
    result = simulate(int(sys.argv[1]))
    print(f"history {result.history}, {result.steps} steps, {result.virtual_s:.3f} s")
    print(dict(sorted(result.ended.items())))
    for what, count in sorted(result.seen.items()):
        print(f"{count:6} {what}")
    for wrong in result.violations:
        print(wrong)
    sys.exit(bool(result.violations))
