"""What probes and scrapers ask: does the process live, can it work, what has it counted."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from processors.api import shown
from processors.api.answers import json
from processors.api.gateway import At, Gateway
from processors.api.trouble import AWAY
from processors.probes import CONTENT_TYPE

READY_S_MAX = 2.0  # a server that takes longer is not ready

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Whether the process lives", response_model=shown.Live)
async def healthz() -> Response:
    """200 while its loop turns; it says nothing of the servers."""
    return json({"status": "live"})


@router.get(
    "/readyz",
    summary="Whether the gateway can work",
    response_model=shown.Ready,
    responses={503: {"model": shown.Ready, "description": "It cannot."}},
)
async def readyz(gateway: At) -> Response:
    """200 where PostgreSQL and Redis answer, else 503 with which of them does not."""
    postgres, redis = await asyncio.gather(_postgres(gateway), _redis(gateway))
    body = {
        "status": "ready" if postgres and redis else "not ready",
        "postgres": postgres,
        "redis": redis,
    }
    return json(body, 200 if postgres and redis else 503)


@router.get(
    "/metrics", summary="Metrics in Prometheus's text format", response_class=PlainTextResponse
)
async def metrics(request: Request, gateway: At) -> Response:
    """Requests by route and status, their times, and what is under way."""
    counted: Any = request.app.state.metrics
    counted.waiting.set(len(gateway.in_flight))
    counted.reading.set(gateway.reads)
    counted.sockets.set(gateway.following.followers)
    return Response(counted.text(), headers={"Content-Type": CONTENT_TYPE})


async def _postgres(gateway: Gateway) -> bool:
    try:
        async with asyncio.timeout(READY_S_MAX):
            await gateway.log.pool.fetchval("SELECT 1")
    except AWAY:
        return False
    return True


async def _redis(gateway: Gateway) -> bool:
    try:
        async with asyncio.timeout(READY_S_MAX):
            await gateway.bus.redis.ping()
    except (OSError, RedisError):
        return False
    return True
