"""Layer three at length: thousands of executions, every kind of harm several times over.

    uv run pytest -n 0 -m chaos_long -s

99.9 % with a confidence of 95 % asks for 0 failures in 2,995 executions.
"""

from __future__ import annotations

import json

import pytest

from tests.chaos.campaign import Report, campaign
from tests.chaos.counters import CAMPAIGN, Seen
from tests.chaos.ground import Servers

EXECUTIONS_MIN = 3_000
SEEDS = (101, 102, 103, 104)
KINDS = {
    "lost": ("I10", "I15", "ends"),
    "doubled": ("I4", "I7", "I8"),
    "gaps": ("I1", "I2", "I11", "I12", "I13"),
    "stuck": ("I15",),
}


@pytest.mark.chaos_long
async def test_three_thousand_executions_under_every_kind_of_harm(harmed: Servers) -> None:
    """R14, R30-R33, I1-I20: nothing lost, nothing doubled, no gap, nothing stuck."""
    reports = []
    for seed in SEEDS:
        reports.append(await campaign(harmed, seed, EXECUTIONS_MIN // len(SEEDS), rounds=2))
        print(reports[-1].line(), flush=True)
    print(summary(reports))
    for report in reports:
        assert not report.wrong, "\n".join([*report.wrong, *report.journal])
    assert sum(report.executions for report in reports) >= EXECUTIONS_MIN
    assert not total(reports).missing(*CAMPAIGN), "void"


def total(reports: list[Report]) -> Seen:
    """What all runs together have seen."""
    seen = Seen()
    for report in reports:
        seen.update(report.seen)
    return seen


def summary(reports: list[Report]) -> str:
    """The figures of all runs, in one line of JSON."""
    wrong = [one for report in reports for one in report.wrong]
    return json.dumps(
        {
            "executions": sum(report.executions for report in reports),
            **{
                kind: sum(one.startswith(tuple(f"{n} " for n in names)) for one in wrong)
                for kind, names in KINDS.items()
            },
            "converged_s_max": round(max(report.converged_s for report in reports), 1),
            "seconds": round(sum(report.seconds for report in reports)),
            "seen": dict(sorted((n, count) for n, count in total(reports).items() if count)),
        }
    )
