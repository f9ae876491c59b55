"""Layer three in short: real processes and servers, all kinds of harm, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import campaign
from tests.chaos.counters import CAMPAIGN, Seen
from tests.chaos.ground import Servers

SEEDS = (11, 12, 13)
EXECUTIONS = 100  # of each seed
seen_in_all = Seen()


@pytest.mark.parametrize("share", range(len(SEEDS)), ids=lambda n: f"seed-{SEEDS[n]}")
async def test_everything_that_goes_wrong_loses_nothing(share: int, harmed: Servers) -> None:
    """R11, R14, R30-R33, I1-I20: each seed does its share of all the harm there is."""
    report = await campaign(harmed, SEEDS[share], EXECUTIONS, (share, len(SEEDS)))
    print(report.line())
    seen_in_all.update(report.seen)
    assert not report.wrong, "\n".join([*report.wrong, *report.journal])
    assert report.executions >= EXECUTIONS
    if share == len(SEEDS) - 1:
        assert not seen_in_all.missing(*CAMPAIGN), "void"
