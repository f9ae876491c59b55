"""Nobody gets in without saying who it is: what is not public needs a principal, whatever it is.

Here and not in the routes, so that a route that forgets to ask lets nobody in. Each tenant may ask
so often a second and no oftener.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import monotonic

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from processors.api.principal import Guard
from processors.api.problems import Problem, of_http

PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
"""What probes, scrapers and readers of the documentation ask; none of it is anybody's."""

BURST_S = 2.0  # a tenant that was silent for so long may ask that much at once
TENANTS_MAX = 10_000


class Door:
    """Wraps the app; WebSockets are asked where they are accepted, so that they can be told why."""

    def __init__(self, app: ASGIApp, guard: Guard, rates: Rates) -> None:
        self.app = app
        self.guard = guard
        self.rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["path"] not in PUBLIC:
            try:
                who = await self.guard.principal(HTTPConnection(scope))
                self.rates.take(who.tenant)
            except Problem as problem:
                await of_http(problem)(scope, receive, send)
                return
            scope["principal"] = who
        await self.app(scope, receive, send)


class Rates:
    """A bucket for each tenant that fills at `rate` a second; raises Problem (429) when empty."""

    def __init__(self, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._full = rate * BURST_S
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str) -> None:
        """One request of this tenant."""
        now = self._clock()
        left, seen = self._buckets.pop(tenant, (self._full, now))
        left = min(self._full, left + (now - seen) * self._rate)
        allowed = left >= 1
        self._buckets[tenant] = (left - 1 if allowed else left, now)
        if len(self._buckets) > TENANTS_MAX:  # who asked longest ago has a full one by now
            del self._buckets[next(iter(self._buckets))]
        if not allowed:
            wait = ceil((1 - left) / self._rate)
            detail = f"The tenant {tenant} asks more than {self._rate:,g} times a second."
            raise Problem("TOO_MANY_REQUESTS", detail, headers={"Retry-After": str(max(1, wait))})
