"""Workflows: definitions that were checked and stored, in revisions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import json, row_shown, tagged
from processors.api.definitions import DOCUMENT, DefinitionRoute, Document, plan_of
from processors.api.pages import Cursor, Limit, page, read
from processors.api.parameters import TEXT, TEXT_CHARS_MAX, WorkflowId
from processors.api.payloads import opened_definition
from processors.api.problems import Problem
from processors.api.reading import Reading
from processors.api.sending import IfMatch, Sending
from processors.api.shapes import Because
from processors.commands import archive_workflow, command
from projections.workflows import WORKFLOWS

COLUMNS = """workflow_id, name, version, revision, digest, pattern, roles, tasks, edges, phases,
    critical_path_seconds, status, created_at, updated_at"""

LIST = f"""
SELECT {COLUMNS} FROM workflows
WHERE tenant = $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR name = $3)
  AND ($4::text IS NULL OR workflow_id < $4)
ORDER BY workflow_id DESC LIMIT $5
"""  # noqa: S608
"""A page of workflows; the ids that we give sort by time, so the newest come first."""

SHOW = f"""
SELECT {COLUMNS}, (
    SELECT (e.message ->> 'version')::bigint FROM histories AS h
    JOIN cursors AS c ON c.consumer = $3 AND c.partition = h.partition
    JOIN LATERAL (
        SELECT message FROM events
        WHERE partition = h.partition AND subject = h.subject
          AND position BETWEEN h.first_position AND least(h.last_position, c.position)
        ORDER BY position DESC LIMIT 1
    ) AS e ON true
    WHERE h.subject = 'workflow/' || workflow_id
) AS at_version
FROM workflows WHERE tenant = $1 AND workflow_id = $2
"""  # noqa: S608
"""One workflow, and the version of it that the row shows."""

DEFINITION = """
SELECT d.body FROM definitions AS d
WHERE d.tenant = $1 AND d.workflow_id = $2 AND ($3::int = 0 OR d.revision = $3)
ORDER BY d.revision DESC LIMIT 1
"""
"""The canonical definition of one revision; 0 is the newest."""

VALIDATIONS_MAX = 2  # at once: each is a thread that computes
_validating = asyncio.Semaphore(VALIDATIONS_MAX)

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"], route_class=DefinitionRoute)
validating = APIRouter(prefix="/api/v1", tags=["workflows"], route_class=DefinitionRoute)


@router.post("", status_code=201, response_model=shown.WorkflowOutcome, openapi_extra=DOCUMENT)
async def create_workflow(document: Document, sending: Sending) -> Response:
    """Check a definition and store it as the first revision of a workflow."""
    root = sending.fresh_root("workflow")
    return await sending.send(
        command("workflow", root, "CreateWorkflow", document),
        location=f"/api/v1/workflows/{root}",
        created=True,
        about={"workflow_id": root},
    )


@validating.post("/validate", response_model=shown.Plan, openapi_extra=DOCUMENT)
async def validate_workflow(document: Document) -> Response:
    """Check a definition and show its plan; nothing is stored."""
    async with _validating:
        return json(await asyncio.to_thread(plan_of, document))


@router.get("", response_model=shown.Page[shown.Workflow])
async def list_workflows(
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Literal["active", "archived"] | None = None,
    name: Annotated[str | None, Query(max_length=TEXT_CHARS_MAX, pattern=TEXT)] = None,
) -> Response:
    """The newest workflows first."""
    filters = ("workflows", status, name)
    [after] = read(cursor, filters, (str,)) or [None]
    rows = await reading.rows(LIST, status, name, after, limit + 1)
    items = [row_shown(row) for row in rows]
    last = [items[limit - 1]["workflow_id"]] if len(items) > limit else []
    return json(page(items, limit, filters, last))


@router.get("/{workflow_id}", response_model=shown.Workflow)
async def get_workflow(workflow_id: WorkflowId, reading: Reading) -> Response:
    """A workflow as of its newest revision; its ETag is for If-Match."""
    row = await reading.row(SHOW, workflow_id, WORKFLOWS.consumer)
    if row is None:
        raise unknown_workflow(workflow_id)
    body = row_shown(row)
    return tagged(body, body.pop("at_version"))


@router.get("/{workflow_id}/definition", response_model=dict[str, Any])
async def get_definition(
    workflow_id: WorkflowId,
    reading: Reading,
    revision: Annotated[int, Query(ge=0, le=2**31 - 1, description="0 is the newest.")] = 0,
) -> Response:
    """The definition of one revision, in its canonical form."""
    row = await reading.row(DEFINITION, workflow_id, revision)
    if row is None:
        wanted = f" in revision {revision}" if revision else ""
        raise unknown_workflow(workflow_id, wanted)
    body = await opened_definition(reading, workflow_id, row["body"])
    return Response(body, media_type="application/json")


@router.put("/{workflow_id}", response_model=shown.WorkflowOutcome, openapi_extra=DOCUMENT)
async def revise_workflow(
    workflow_id: WorkflowId, document: Document, sending: Sending, if_match: IfMatch = None
) -> Response:
    """Write a further revision; running executions stay on theirs."""
    return await sending.send(
        command("workflow", workflow_id, "ReviseWorkflow", document),
        if_match=if_match,
        about={"workflow_id": workflow_id},
    )


@router.post("/{workflow_id}/archive", response_model=shown.WorkflowOutcome)
async def archive(
    workflow_id: WorkflowId,
    sending: Sending,
    because: Because | None = None,
    if_match: IfMatch = None,
) -> Response:
    """Start no more executions of a workflow; the history stays."""
    return await sending.send(
        archive_workflow(workflow_id, because.reason if because else ""),
        if_match=if_match,
        about={"workflow_id": workflow_id},
    )


def unknown_workflow(workflow_id: str, more: str = "") -> Problem:
    """There is none of this id, or it is somebody else's."""
    return Problem("UNKNOWN_WORKFLOW", f"There is no workflow {workflow_id}{more}.")
