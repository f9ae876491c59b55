"""The tokens that our own programs show: the engine's, signed here, and those they were given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from processors.access.keys import Key
from processors.access.principal import ANY_TENANT, Role
from processors.access.settings import DEFAULT, AccessSettings, Expected, read_secret
from processors.access.tokens import sign

ENGINE_LIFE_S = 3_600.0
ENGINE_RENEWED_S = 1_800.0  # what waits in a stream for half an hour is still the engine's
TENANTS_MAX = 1_000  # whose tokens are kept, not signed anew for each command
LOOK_S = 1.0  # between two looks at a file

Shown = Callable[[], str | None]
"""The token to put into a command now; None where none is needed."""


def nothing() -> str | None:
    """No token."""
    return None


@dataclass(slots=True)
class EngineTokens:
    """Signs what the engine's managers and carriers show; renewed long before it expires."""

    key: Key = field(repr=False)
    expected: Expected = DEFAULT
    clock: Callable[[], float] = time.time
    _signed: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def __call__(self) -> str:
        """For commands to any tenant's aggregates."""
        return self.of(ANY_TENANT)

    def of(self, tenant: str) -> str:
        """For commands of this tenant only."""
        now = self.clock()
        token, until = self._signed.get(tenant, ("", 0.0))
        if not now < until:
            token = self._sign(tenant, now)
            if len(self._signed) >= TENANTS_MAX:
                self._signed.clear()
            self._signed[tenant] = (token, now + ENGINE_RENEWED_S)
        return token

    def _sign(self, tenant: str, now: float) -> str:
        return sign(
            self.key,
            subject="engine",
            tenant=tenant,
            roles=[Role.ENGINE],
            now=now,
            life_s=ENGINE_LIFE_S,
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


def shown(settings: AccessSettings) -> Shown:
    """What this program shows: the token that it was given, by text or by file, or nothing."""
    if settings.token is not None:
        given = settings.token.strip()
        return lambda: given
    return nothing if settings.token_file is None else FileToken(settings.token_file)


def engine_shown(settings: AccessSettings) -> EngineTokens | None:
    """What the engine itself shows; None where nobody asks for tokens."""
    if settings.auth == "none":
        return None
    return EngineTokens(settings.engine_keys()[0], settings.expected)
