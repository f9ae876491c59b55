"""The tokens that our own programs show: the engine's, signed here, and those they were given."""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from processors.access.principal import ANY_TENANT, Role
from processors.access.settings import DEFAULT, AccessSettings, Expected, read_secret
from streams.message import DEFAULT_TENANT

if TYPE_CHECKING:
    from processors.access.keys import Key

LIFE_S = 3_600.0
RENEWED_S = 1_800.0  # what waits in a stream for half an hour is still valid
TENANTS_MAX = 1_000  # whose tokens are kept, not signed anew for each command
LOOK_S = 1.0  # between two looks at a file

Shown = Callable[[], str | None]
"""The token to put into a command now; None where none is needed."""


def nothing() -> str | None:
    """No token."""
    return None


@dataclass(slots=True)
class SignedTokens:
    """Signs tokens with a shared key as they are needed; renewed long before they expire."""

    key: Key = field(repr=False)
    subject: str = "engine"
    roles: tuple[Role, ...] = (Role.ENGINE,)
    tenant: str = ANY_TENANT
    agents: tuple[str, ...] = ()
    expected: Expected = DEFAULT
    clock: Callable[[], float] = time.time
    _signed: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def __call__(self) -> str:
        """For commands to whatever its tenant may reach."""
        return self.of(self.tenant)

    def of(self, tenant: str) -> str:
        """For commands of this tenant only."""
        now = self.clock()
        token, until = self._signed.get(tenant, ("", 0.0))
        if not now < until:
            token = self._sign(tenant, now)
            if len(self._signed) >= TENANTS_MAX:
                self._signed.clear()
            self._signed[tenant] = (token, now + RENEWED_S)
        return token

    def _sign(self, tenant: str, now: float) -> str:
        from processors.access.tokens import sign  # whoever shows no token needs no cryptography

        return sign(
            self.key,
            subject=self.subject,
            tenant=tenant,
            roles=self.roles,
            agents=self.agents,
            now=now,
            life_s=LIFE_S,
            expected=self.expected,
        )


@dataclass(slots=True)
class FileToken:
    """A token in a file that somebody else renews."""

    path: Path
    clock: Callable[[], float] = time.monotonic
    _token: str = field(default="", repr=False)
    _looked: float = float("-inf")

    def __call__(self) -> str:
        """What the file says now; raises BadKey where it cannot be read."""
        now = self.clock()
        if now - self._looked >= LOOK_S:
            self._token = read_secret(self.path)
            self._looked = now
        return self._token


@lru_cache(maxsize=100)
def tenant_of(token: str) -> str | None:
    """What a token says of its tenant, unchecked; None where it says nothing, or any."""
    try:
        said = token.split(".")[1]
        tenant = orjson.loads(urlsafe_b64decode(said + "=" * (-len(said) % 4)))["tenant"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return tenant if isinstance(tenant, str) and tenant != ANY_TENANT else None


def shown(settings: AccessSettings, roles: Sequence[Role] = (Role.ADMIN,)) -> Shown:
    """What this program shows: the token that it was given, or one that it signs for itself.

    The latter where it has the shared key anyway, as on the machine of `orchestrator up`.
    """
    if settings.token is not None:
        given = settings.token.strip()
        return lambda: given
    if settings.token_file is not None:
        return FileToken(settings.token_file)
    if settings.auth == "none" or not (keys := settings.shared_keys()):
        return nothing
    agents = ("*",) if Role.AGENT in roles else ()
    return SignedTokens(
        keys[0], "cli", tuple(roles), DEFAULT_TENANT, agents, expected=settings.expected
    )


def engine_shown(settings: AccessSettings) -> SignedTokens | None:
    """What the engine itself shows; None where nobody asks for tokens."""
    if settings.auth == "none":
        return None
    return SignedTokens(settings.engine_keys()[0], expected=settings.expected)
