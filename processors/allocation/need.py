"""What a role asks of its agents, and by which policy one is chosen; pure."""

from __future__ import annotations

from dataclasses import dataclass

from aggregates.definitions.model import Definition

PULL = "pull"


@dataclass(frozen=True, slots=True)
class Need:
    """What holds for all tasks of one role; `region` is preferred, the capabilities are needed.

    `max_concurrency` bounds what one agent does at once, below its own capacity.
    """

    policy: str
    capabilities: frozenset[str] = frozenset()
    max_concurrency: int | None = None
    region: str | None = None


def needs(definition: Definition) -> dict[str, Need]:
    """The need of each role; empty where its agents pull, and nobody is chosen."""
    policy: str = getattr(definition.coordination, "allocation", PULL)
    if policy == PULL:
        return {}
    found = {}
    for role, asked in definition.agents.items():
        region = asked.metadata.get("region")
        found[role] = Need(
            policy,
            frozenset(asked.capabilities),
            asked.max_concurrency,
            region if isinstance(region, str) else None,
        )
    return found
