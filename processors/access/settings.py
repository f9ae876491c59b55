"""What the environment says about tokens; part of `processors.settings.Settings`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from processors.access.keys import Key

ISSUER = AUDIENCE = "agentcore"

SECRET_FILE_BYTES_MAX = 64 * 1024
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class BadKey(ValueError):
    """A key cannot be used; the sentence does not repeat it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to say of where it comes from and whom it is for."""

    issuer: str = ISSUER
    audience: str = AUDIENCE


DEFAULT = Expected()


class AccessSettings(BaseSettings):
    """AGENTCORE_AUTH…: whether commands need tokens, the keys of those, and this program's own."""

    auth: Literal["none", "token"] = "none"
    """`none` is for development: whoever reaches Redis or the API may do everything."""
    auth_key: str | None = Field(None, repr=False)
    """Shared keys for HS256, one a line; the first signs, all are accepted."""
    auth_key_file: Path | None = None
    auth_jwks: str | None = None
    """A file or an https:// address with the public keys of an issuer (RS256, EdDSA)."""
    auth_issuer: str = ISSUER
    auth_audience: str = AUDIENCE
    engine_key: str | None = Field(None, repr=False)
    """The engine's own keys, one a line; they follow from the shared keys where none are given."""
    engine_key_file: Path | None = None
    token: str | None = Field(None, repr=False)
    """What this program shows when it gives commands."""
    token_file: Path | None = None
    """The same, read again whenever it has changed, so that somebody else can renew it."""

    @field_validator(
        *("auth_key", "auth_key_file", "auth_jwks", "engine_key", "engine_key_file"),
        *("token", "token_file"),
        mode="before",
    )
    @classmethod
    def _none_for_empty(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _keys_are_there(self) -> Self:
        if self.auth_jwks is not None and "://" in self.auth_jwks:
            address = urlsplit(self.auth_jwks)
            plain = address.scheme == "http" and address.hostname in LOOPBACK
            if address.scheme != "https" and not plain:
                raise ValueError("AGENTCORE_AUTH_JWKS must be a file or begin with https://")
        if self.auth == "none":
            return self
        shared_given = self.auth_key is not None or self.auth_key_file is not None
        if not shared_given and self.auth_jwks is None:
            raise ValueError(
                "AGENTCORE_AUTH=token needs AGENTCORE_AUTH_KEY, AGENTCORE_AUTH_KEY_FILE"
                " or AGENTCORE_AUTH_JWKS"
            )
        if not shared_given and self.engine_key is None and self.engine_key_file is None:
            raise ValueError(
                "AGENTCORE_AUTH_JWKS alone does not do: the engine signs its own commands;"
                " set AGENTCORE_ENGINE_KEY or AGENTCORE_ENGINE_KEY_FILE"
            )
        return self

    @property
    def expected(self) -> Expected:
        """Issuer and audience of every token."""
        return Expected(self.auth_issuer, self.auth_audience)

    def shared_keys(self) -> list[Key]:
        """The keys that people's and agents' tokens are signed with; raises BadKey."""
        from processors.access.keys import shared

        return [shared(one) for one in _secrets(self.auth_key, self.auth_key_file)]

    def engine_keys(self) -> list[Key]:
        """The engine's own keys, the one that signs first; raises BadKey."""
        from processors.access.keys import engines, shared

        own = _secrets(self.engine_key, self.engine_key_file)
        if own:
            return [shared(one, engine=True) for one in own]
        return [engines(one) for one in _secrets(self.auth_key, self.auth_key_file)]


def _secrets(text: str | None, path: Path | None) -> list[bytes]:
    if text is not None:
        return _lines(text)
    return [] if path is None else _lines(read_secret(path))


def _lines(text: str) -> list[bytes]:
    """One secret a line: the first signs, all are accepted."""
    return [line.strip().encode() for line in text.splitlines() if line.strip()]


def read_secret(path: Path) -> str:
    """The text of a small file; raises BadKey, which names the file and nothing in it."""
    try:
        with path.expanduser().open("rb") as file:
            raw = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None
    if len(raw) > SECRET_FILE_BYTES_MAX:
        raise BadKey(f"{path} is larger than {SECRET_FILE_BYTES_MAX:,} bytes.")
    return raw.decode(errors="replace").strip()
