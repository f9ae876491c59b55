"""The read model `workflows`: one row a workflow, as of its newest revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from projections.projection import Projection, Statement, columns
from streams.message import Event

WRITE = """
INSERT INTO workflows AS w (workflow_id, tenant, name, version, revision, digest, pattern, roles,
    tasks, edges, phases, critical_path_seconds, status, created_at, updated_at)
SELECT id, tenant, name, version, revision, digest, pattern,
    ARRAY(SELECT json_array_elements_text(roles::json)), tasks, edges, phases, seconds, 'active',
    time::timestamptz, time::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[],
            $8::text[], $9::int[], $10::int[], $11::int[], $12::float8[], $13::text[])
    AS s(id, tenant, name, version, revision, digest, pattern, roles, tasks, edges, phases, seconds,
         time)
ON CONFLICT (workflow_id) DO UPDATE
SET name = excluded.name, version = excluded.version, revision = excluded.revision,
    digest = excluded.digest, pattern = excluded.pattern, roles = excluded.roles,
    tasks = excluded.tasks, edges = excluded.edges, phases = excluded.phases,
    critical_path_seconds = excluded.critical_path_seconds, updated_at = excluded.updated_at
"""

ARCHIVE = """
UPDATE workflows AS w SET status = 'archived', updated_at = a.time::timestamptz
FROM unnest($1::text[], $2::text[]) AS a(id, time) WHERE w.workflow_id = a.id
"""


def apply(events: Sequence[Event]) -> list[Statement]:
    """The statements that bring the table from before these events to after them."""
    statements: list[Statement] = []
    for event in events:  # a handful a day: one statement each keeps their order for nothing
        if event.type == "WorkflowArchived":
            statements.append((ARCHIVE, columns([(event.root, event.time)])))
        else:
            statements.append((WRITE, columns([_row(event)])))
    return statements


def _row(event: Event) -> tuple[Any, ...]:
    data = event.data
    return (
        event.root,
        event.tenant,
        data["name"],
        data["version"],
        data["revision"],
        data["digest"],
        data["pattern"],
        orjson.dumps(data["roles"]).decode(),
        data["tasks"],
        data["edges"],
        data["phases"],
        data["critical_path_seconds"],
        event.time,
    )


WORKFLOWS = Projection(
    name="workflows",
    version=1,
    tables=("workflows",),
    types=frozenset({"WorkflowCreated", "WorkflowRevised", "WorkflowArchived"}),
    apply=apply,
)
