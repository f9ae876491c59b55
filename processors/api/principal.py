"""Who asks: every request has one principal, and every read is of its tenant only.

Where tokens are asked for, `Authorization: Bearer …` carries one; a browser, which cannot send
headers with a WebSocket, offers the subprotocol `bearer.…` beside `agentcore`. A gateway that asks
for none knows one principal, the developer.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from processors.access import principal as access
from processors.access.admission import tokens_of
from processors.access.principal import ANY_TENANT, Unauthenticated
from processors.access.published import PublishedKeys
from processors.access.roles import Read, check_read, may_read
from processors.access.settings import AccessSettings
from processors.access.tokens import Tokens, UnknownKey
from processors.api.problems import Problem
from streams.codec import TENANT
from streams.message import DEFAULT_TENANT

CHALLENGE = 'Bearer realm="agentcore"'
SUBPROTOCOL = "agentcore"
BEARER = "bearer."
TENANT_HEADER = "x-tenant"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, on behalf of a tenant; `everywhere` also sees what belongs to no tenant."""

    tenant: str
    actor: str
    everywhere: bool = False
    token: str | None = field(default=None, repr=False)
    """What its commands carry; the command processor asks for it again."""
    known: access.Principal | None = field(default=None, repr=False)

    def may(self, kind: Read) -> bool:
        """Whether it may read this; who needs no token may read everything."""
        return self.known is None or may_read(self.known, kind)

    def may_give(self, aggregate: str, kind: str) -> bool:
        """Whether it may give this command, as far as its roles go."""
        return self.known is None or (aggregate, kind) in self.known.commands


DEVELOPER = Principal(DEFAULT_TENANT, "http", everywhere=True)


seen_tenant: ContextVar[str] = ContextVar("seen_tenant", default="")
"""Whose rows the database shows to the request that is under way; nobody's where it is not known.
"""


class Guard:
    """Turns what requests carry into principals; one a gateway."""

    def __init__(self, settings: AccessSettings) -> None:
        self._tokens: Tokens | None = None
        self._published: PublishedKeys | None = None
        if settings.auth != "none":
            self._tokens, self._published = tokens_of(settings)

    async def start(self) -> None:
        """Get the keys that somebody publishes; raises BadKey."""
        if self._published is not None:
            await self._published.start()

    async def stop(self) -> None:
        """Look for keys no more."""
        if self._published is not None:
            await self._published.stop()

    async def principal(self, connection: HTTPConnection) -> Principal:
        """Who asks; raises Problem (401)."""
        if self._tokens is None:
            return DEVELOPER
        try:
            token = shown(connection)
            try:
                known = self._tokens.principal(token, time.time())
            except UnknownKey:
                if self._published is None or not await self._published.renewed():
                    raise
                known = self._tokens.principal(token, time.time())
        except Unauthenticated as error:
            headers = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
            raise Problem("UNAUTHENTICATED", error.detail, headers=headers) from None
        tenant, everywhere = known.tenant, known.tenant == ANY_TENANT
        if everywhere:
            tenant = connection.headers.get(TENANT_HEADER, DEFAULT_TENANT)
            if not TENANT.fullmatch(tenant):
                raise Problem("INVALID_VALUE", "The header X-Tenant names a tenant.")
        seen_tenant.set(known.tenant)
        return Principal(tenant, known.subject, everywhere, token, known)


def shown(connection: HTTPConnection) -> str:
    """The token that a request carries; raises Unauthenticated."""
    header = connection.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if connection.scope["type"] == "websocket":
        for offered in connection.scope.get("subprotocols", ()):
            if offered.startswith(BEARER):
                return str(offered[len(BEARER) :])
    raise Unauthenticated("Send a token: `Authorization: Bearer …`.")


async def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request or a WebSocket; raises Problem (401)."""
    found: Principal | None = connection.scope.get("principal")
    if found is None:
        guard: Guard = connection.app.state.guard
        found = connection.scope["principal"] = await guard.principal(connection)
    return found


Who = Annotated[Principal, Depends(principal)]


def reads(kind: Read) -> Any:
    """A dependency: whoever asks may read this; raises Problem (403)."""

    async def check(who: Who) -> None:
        if who.known is not None:
            check_read(who.known, kind)

    check.kind = kind  # type: ignore[attr-defined]
    return Depends(check)
