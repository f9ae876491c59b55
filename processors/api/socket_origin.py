"""Which pages may open a WebSocket: browsers ask nobody, they only say where a page is from.

Without this check any page that somebody looks at could listen to the engine on his own machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.websockets import WebSocket


def is_foreign(socket: WebSocket, allowed: Sequence[str]) -> bool:
    """Whether a page of another origin asks, which was not allowed; programs name no origin."""
    origin = socket.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return False
    return urlsplit(origin).netloc.lower() != socket.headers.get("host", "").lower()
