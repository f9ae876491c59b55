"""Who asks: every request has one principal, and every read is of its tenant only.

There are no tokens yet: everybody is the development tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from streams.message import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, on behalf of a tenant; `everywhere` also sees what belongs to no tenant."""

    tenant: str
    actor: str
    everywhere: bool = False


DEVELOPER = Principal(DEFAULT_TENANT, "http", everywhere=True)


async def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request or a WebSocket."""
    return DEVELOPER


Who = Annotated[Principal, Depends(principal)]
