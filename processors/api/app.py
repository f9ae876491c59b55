"""The app factory: routes, errors, limits, and a lifespan that connects the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from aggregates.problem import Refused
from processors.api import problems
from processors.api.door import Door, Rates
from processors.api.front import Front
from processors.api.gateway import Gateway
from processors.api.metrics import ApiMetrics
from processors.api.openapi import described
from processors.api.principal import Guard, reads
from processors.api.routes import ROUTERS
from processors.api.trouble import unavailable
from processors.settings import Addresses, Settings
from streams.log import LogUnavailable

EXPOSED = ("ETag", "Idempotency-Key", "Location", "Retry-After", "X-Position", "X-Request-Id")


def make_app(settings: Settings, addresses: Addresses) -> FastAPI:
    """The ASGI app; it connects when its lifespan begins."""

    guard = Guard(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Gateway(settings, addresses) as gateway:
            app.state.gateway = gateway
            await guard.start()
            try:
                yield
            finally:
                await guard.stop()

    app = FastAPI(
        title="AgentCore orchestration engine",
        version=version("agentcore-orchestrator"),
        lifespan=lifespan,
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.metrics = ApiMetrics()
    app.state.guard = guard
    for router, kind in ROUTERS:
        app.include_router(router, dependencies=[] if kind is None else [reads(kind)])
    _explain(app)
    app.add_middleware(Door, guard=guard, rates=Rates(settings.api_rate))
    if settings.api_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(Front, metrics=app.state.metrics)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    return app


def _explain(app: FastAPI) -> None:
    """Every error as a problem document."""

    async def on_http(request: Request, error: Any) -> Response:
        if error.status_code == 405:
            error.headers = {"Allow": ", ".join(methods_of(request.url.path))}
        return problems.of_http(error)

    async def on_validation(_: Request, error: Any) -> Response:
        return problems.of_validation(error)

    async def on_refused(_: Request, error: Any) -> Response:
        return problems.of_document(error.problem())

    async def on_unavailable(_: Request, error: Any) -> Response:
        return problems.of_http(unavailable("PostgreSQL"))

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(LogUnavailable, on_unavailable)


def methods_of(path: str) -> list[str]:
    """The methods of all routes of a path."""
    routes = [one for router, _ in ROUTERS for one in router.routes if isinstance(one, APIRoute)]
    found = [one.methods or () for one in routes if one.path_regex.match(path)]
    return sorted({method for methods in found for method in methods})
