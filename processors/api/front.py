"""The first thing that a request meets: its id, its trace, the log, and no error's inside."""

from __future__ import annotations

import re
from os import urandom
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregates.problem import Refused
from processors.api.metrics import ApiMetrics
from processors.api.problems import answer
from processors.commands import new_id

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")

logger = structlog.get_logger(__name__)


class Front:
    """Wraps the app; passes through what is not HTTP."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = new_id()
        trace = traced(headers.get("traceparent"))
        scope["traceparent"], scope["request_id"] = trace, request_id
        status, began = 0, perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-Id"], out["traceparent"] = request_id, trace
                out["X-Content-Type-Options"] = "nosniff"
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace=trace[3:35]):
            try:
                await self.app(scope, receive, sending)
            except Exception:
                logger.exception("request_crashed", method=scope["method"], path=_route(scope))
                if status:  # the answer is on its way; its end will tell that something is amiss
                    raise
                detail = f"Something went wrong here; its trace is logged under {request_id}."
                crashed = answer(Refused("INTERNAL", detail).problem(), 500)
                await crashed(scope, receive, sending)
            finally:
                seconds = perf_counter() - began
                route = _route(scope)
                self.metrics.answered(scope["method"], route, status, seconds)
                logger.info(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    ms=round(seconds * 1_000, 2),
                )


def traced(traceparent: str | None) -> str:
    """The trace context (W3C) of a request's work: its trace, or a new one; a span of ours."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    trace, flags = (found[1], found[2]) if found else (urandom(16).hex(), "00")
    return f"00-{trace}-{urandom(8).hex()}-{flags}"


def _route(scope: Scope) -> str:
    """The route's pattern: paths themselves are endless, and may tell what is nobody's business."""
    route = scope.get("route")
    return getattr(route, "path", "") or "none"
