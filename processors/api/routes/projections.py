"""The read models: how far each has come in each partition."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from processors.api import shown
from processors.api.answers import json
from processors.api.gateway import At
from processors.api.principal import Who
from processors.api.requests import JsonRoute
from projections import PROJECTIONS
from streams.log import WRITER

STAND = """
SELECT c.consumer, c.partition, head.position AS head, c.position,
       greatest(head.position - c.position, 0) AS lag
FROM cursors AS c JOIN cursors AS head ON head.partition = c.partition AND head.consumer = $1
WHERE c.consumer = ANY($2::text[]) ORDER BY c.consumer, c.partition
"""
"""How the read models stand; positions are counted in events."""

router = APIRouter(prefix="/api/v1/projections", tags=["operations"], route_class=JsonRoute)


@router.get("", response_model=shown.ReadModels)
async def list_projections(gateway: At, who: Who) -> Response:
    """How far the read models are behind the log, by partition."""
    consumers = [projection.consumer for projection in PROJECTIONS]
    rows = await gateway.rows(who, STAND, WRITER, consumers)
    by_consumer: dict[str, list[dict[str, Any]]] = {consumer: [] for consumer in consumers}
    for row in rows:
        fields = dict(row)
        by_consumer[fields.pop("consumer")].append(fields)
    items = [
        {
            "name": projection.name,
            "version": projection.version,
            "tables": projection.tables,
            "lag": sum(one["lag"] for one in by_consumer[projection.consumer]),
            "partitions": by_consumer[projection.consumer],
        }
        for projection in PROJECTIONS
    ]
    return json({"items": items})
