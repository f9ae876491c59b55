"""What a command processor counts; the names are the metrics'."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What happened here since the start; the names are the metrics'."""

    commands: int = 0
    events: int = 0
    commits: int = 0
    repeats: int = 0
    refusals: int = 0
    over_quota: int = 0
    conflicts: int = 0
    snapshot_fallbacks: int = 0
    dead_letters: int = 0
    fenced: int = 0
    unknown_commits: int = 0
    refused_commits: int = 0
