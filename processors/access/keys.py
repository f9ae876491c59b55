"""The keys that tokens are checked with: shared secrets, and public keys from a JWKS document.

Every key has one algorithm, which the token's header cannot change. Several keys of one kind may be
there at once, which is how a key is replaced without a pause: add the new one, sign with it, and
take the old one away when the last token that it signed has expired.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from processors.access.settings import BadKey

SECRET_BYTES_MIN = 32  # as long as what HMAC-SHA256 makes of it: RFC 7518, 3.2
RSA_BITS_MIN = 2048
KEYS_MAX = 64  # of one document; a token without a `kid` is tried with each of its algorithm
KID_CHARS_MAX = 200

HS256, RS256, EDDSA = "HS256", "RS256", "EdDSA"
_ALGORITHM = {"RSA": RS256, "OKP": EDDSA}


@dataclass(frozen=True, slots=True)
class Key:
    """One key with the one algorithm that it is for; `engine` may speak for the engine itself."""

    kid: str
    algorithm: str
    material: Any = field(repr=False)
    engine: bool = False


def shared(secret: bytes, *, engine: bool = False) -> Key:
    """A key for HS256, from a secret; its id follows from it and does not betray it."""
    if len(secret) < SECRET_BYTES_MIN:
        raise BadKey(f"A shared key needs at least {SECRET_BYTES_MIN} bytes, not {len(secret)}.")
    return Key(sha256(b"agentcore kid\0" + secret).hexdigest()[:16], HS256, secret, engine)


def engines(secret: bytes) -> Key:
    """The engine's own key that follows from a shared one, where it was given none."""
    derived = hmac.digest(secret, b"agentcore engine tokens v1", "sha256")
    return shared(derived, engine=True)


def from_jwks(raw: bytes) -> list[Key]:
    """The usable keys of a JWKS document (RFC 7517): RSA and Ed25519, for signatures.

    Raises BadKey where the document is none, or where none of its keys can be used.
    """
    try:
        document = orjson.loads(raw)
        listed = document["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise BadKey("A JWKS document is a JSON object with `keys`, a list.") from None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise BadKey(f"A JWKS document has `keys`, a list of at most {KEYS_MAX}.")
    found = [key for one in listed if (key := _public(one)) is not None]
    if not found:
        raise BadKey("The JWKS document has no RSA (RS256) or Ed25519 (EdDSA) key for signatures.")
    return found


def _public(one: Any) -> Key | None:
    """What is not for us is passed over: documents hold keys for other uses too."""
    if not isinstance(one, dict) or one.get("use", "sig") != "sig":
        return None
    algorithm, kid = _ALGORITHM.get(str(one.get("kty"))), one.get("kid", "")
    if algorithm is None or one.get("alg", algorithm) != algorithm:
        return None
    if not isinstance(kid, str) or len(kid) > KID_CHARS_MAX:
        return None
    try:
        material = jwt.PyJWK(one, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if hasattr(material, "public_key"):  # a private key, which nobody should have published
        return None
    if isinstance(material, RSAPublicKey):
        return Key(kid, algorithm, material) if material.key_size >= RSA_BITS_MIN else None
    return Key(kid, algorithm, material) if isinstance(material, Ed25519PublicKey) else None


class Keyring:
    """All keys by their ids."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._fixed = tuple(keys)
        self._all = self._fixed

    def publish(self, keys: Iterable[Key]) -> None:
        """Replace the keys that came from a JWKS document; the fixed ones stay."""
        self._all = (*self._fixed, *keys)

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys of this algorithm that a token may have been signed with."""
        return [
            key
            for key in self._all
            if key.algorithm == algorithm and (kid is None or key.kid in (kid, ""))
        ]
