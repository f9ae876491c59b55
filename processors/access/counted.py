"""What tenants have, as the read models show it, and how far those are."""

from __future__ import annotations

from collections.abc import Collection

from processors.access.quotas import AGENTS, EXECUTIONS, Limits, Look, Quotas, Seen
from processors.settings import Settings
from projections import agents, executions
from streams.logs.postgres import PostgresLog

LOOK = """
SELECT 'executions' AS kind, tenant, NULL::integer AS partition, count(*) FROM executions
WHERE tenant = ANY($1::text[]) AND status IN ('executing', 'paused') AND status <> 'completed'
GROUP BY tenant
UNION ALL
SELECT 'agents', tenant, NULL, count(*) FROM agents
WHERE tenant = ANY($1::text[]) AND status <> 'deregistered' GROUP BY tenant
UNION ALL
SELECT CASE consumer WHEN $2 THEN 'executions' ELSE 'agents' END, NULL, partition, position
FROM cursors WHERE consumer IN ($2, $3)
"""
"""One statement, so that counts and positions are of one moment; its index is of what has not
completed."""


def quotas(settings: Settings, log: PostgresLog) -> Quotas:
    """The quotas that the settings set, counted in this log."""
    limits = Limits(
        settings.tenant_executions, settings.tenant_agents, settings.tenant_events_per_s
    )
    return Quotas(limits, _look(log))


def _look(log: PostgresLog) -> Look:
    consumers = executions.EXECUTIONS.consumer, agents.AGENTS.consumer

    async def look(tenants: Collection[str]) -> Seen:
        shown: dict[str, dict[int, int]] = {EXECUTIONS: {}, AGENTS: {}}
        counts = []
        for kind, tenant, partition, number in await log.fetch(LOOK, list(tenants), *consumers):
            if tenant is None:
                shown[kind][partition] = number
            else:
                counts.append((kind, tenant, number))
        return shown, counts

    return look
