"""Workflows: definitions that were checked and stored, in revisions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from processors.api.answers import shown, tagged
from processors.api.gateway import At
from processors.api.principal import Who
from processors.api.problems import Problem
from processors.api.requests import JsonRoute
from processors.api.sending import Sending
from processors.commands import create_workflow

SHOW = """
SELECT workflow_id, name, version, revision, digest, pattern, roles, tasks, edges, phases,
       critical_path_seconds, status, created_at, updated_at
FROM workflows WHERE tenant = $1 AND workflow_id = $2
"""

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"], route_class=JsonRoute)


@router.post("", status_code=201)
async def create(definition: dict[str, Any], sending: Sending) -> Response:
    """Check a definition and store it as the first revision of a workflow."""
    root = sending.fresh_root("workflow")
    command = create_workflow(definition=definition, workflow_id=root)
    return await sending.send(
        command, location=f"/api/v1/workflows/{root}", created=True, about={"workflow_id": root}
    )


@router.get("/{workflow_id}")
async def get(workflow_id: str, gateway: At, who: Who) -> Response:
    """A workflow as of its newest revision."""
    row = await gateway.row(who, SHOW, who.tenant, workflow_id)
    if row is None:
        raise Problem("UNKNOWN_WORKFLOW", f"There is no workflow {workflow_id}.")
    return tagged(shown(row), None)
