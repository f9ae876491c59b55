"""What the engine says of agents, from the read model: who is kept from work, who is registered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import asyncpg

from streams.log import LogUnavailable
from streams.logs.postgres import PostgresLog

KEPT_MAX = 10_000  # those that changed last

KEPT = """
SELECT agent_id, tenant, status, circuit, lost, reason FROM agents
WHERE status <> 'active' OR circuit <> 'closed' OR lost
ORDER BY updated_at DESC LIMIT $1
"""
KNOWN = """
SELECT agent_id, tenant, status, circuit, lost, reason FROM agents
WHERE agent_id = ANY($1) AND status <> 'deregistered'
"""


class State(NamedTuple):
    """One registered agent, as the log has it."""

    agent: str
    tenant: str
    status: str
    circuit: str
    lost: bool
    reason: str


class States(Protocol):
    """Where the agents' states are asked for; both raise LogUnavailable."""

    async def kept_from_work(self) -> dict[str, State]:
        """Those with something that keeps them from work, by id; the newest KEPT_MAX."""

    async def known(self, agents: Iterable[str]) -> dict[str, State]:
        """Those of these ids that are registered."""


class ReadModel:
    """The states in the table `agents`; late by what the projector is late."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log

    async def kept_from_work(self) -> dict[str, State]:
        """One scan of a small index."""
        return await self._fetch(KEPT, KEPT_MAX)

    async def known(self, agents: Iterable[str]) -> dict[str, State]:
        """By primary key."""
        return await self._fetch(KNOWN, list(agents))

    async def _fetch(self, statement: str, argument: object) -> dict[str, State]:
        try:
            rows = await self._log.pool.fetch(statement, argument)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            raise LogUnavailable(f"{type(error).__name__}: {error}"[:300]) from error
        return {row[0]: State(*row) for row in rows}
