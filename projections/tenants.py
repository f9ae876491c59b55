"""The read model `tenants`; and what follows from an erasure: the tenant's keys are taken away.

That happens here, in the transaction that moves the cursor, so that no crash leaves an erased
tenant its keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from projections.projection import Projection, Statement
from streams.message import Event

WRITE = """
INSERT INTO tenants AS t (tenant, name, status, key_version, created_by, created_at, updated_at)
VALUES ($1, coalesce($2, $1), 'active', $3, $4, $5::text::timestamptz, $5::text::timestamptz)
ON CONFLICT (tenant) DO UPDATE
SET name = coalesce($2, t.name), key_version = greatest(t.key_version, excluded.key_version),
    updated_at = excluded.updated_at
"""

ERASE = """
INSERT INTO tenants AS t (tenant, name, status, key_version, created_by, created_at, updated_at,
    erased_by, erased_why, erased_at)
VALUES ($1, $1, 'erased', 0, $2, $4::text::timestamptz, $4::text::timestamptz, $2, $3,
    $4::text::timestamptz)
ON CONFLICT (tenant) DO UPDATE
SET status = 'erased', key_version = 0, updated_at = excluded.updated_at,
    erased_by = excluded.erased_by, erased_why = excluded.erased_why,
    erased_at = excluded.erased_at
"""

TAKE_KEYS = "SELECT erase_tenant_keys($1, $2::text::timestamptz)"


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them; few a year."""
    statements: list[Statement] = []
    for event in events:
        tenant, data = event.root, event.data
        match event.type:
            case "TenantCreated":
                statements.append((WRITE, (tenant, data["name"], 1, data["by"], event.time)))
            case "TenantKeyRotated":
                rotated = (tenant, None, data["version"], data["by"], event.time)
                statements.append((WRITE, rotated))
            case "TenantErased":
                erased = (tenant, data["by"], data["reason"], event.time)
                statements += [(ERASE, erased), (TAKE_KEYS, (tenant, event.time))]
    return statements


TENANTS = Projection(
    name="tenants",
    version=1,
    tables=("tenants",),
    types=frozenset({"TenantCreated", "TenantKeyRotated", "TenantErased"}),
    apply=apply,
)
