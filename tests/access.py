"""Keys and tokens for tests; every key is made here and is good for nothing else."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from processors.access.keys import Key, Keyring, engines, shared
from processors.access.tokens import Tokens, sign

NOW = 1_800_000_000.0
SECRET = b"a shared key of the tests, 32 bytes and more"
SHARED = shared(SECRET)
ENGINE = engines(SECRET)


def tokens(*keys: Key) -> Tokens:
    return Tokens(Keyring(keys or (SHARED, ENGINE)))


def token(*roles: str, tenant: str = "acme", subject: str = "ann", **more: Any) -> str:
    told = {"now": NOW, "life_s": 600.0, "key": SHARED} | more
    return sign(told.pop("key"), subject=subject, tenant=tenant, roles=roles, **told)


def claims(**changed: Any) -> dict[str, Any]:
    """What a token of ours says; None leaves a claim out."""
    usual = {
        "iss": "agentcore",
        "aud": "agentcore",
        "sub": "ann",
        "tenant": "acme",
        "roles": ["operator"],
        "iat": NOW,
        "exp": NOW + 600,
    }
    return {name: value for name, value in (usual | changed).items() if value is not None}


def encoded(
    said: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any
) -> str:
    return jwt.encode(said, key, algorithm=algorithm, headers=header or None)


def by_hand(header: dict[str, Any], said: dict[str, Any], signature: bytes = b"") -> str:
    """A token as no library would make it."""
    parts = (orjson.dumps(header), orjson.dumps(said), signature)
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
ED = ed25519.Ed25519PrivateKey.generate()


def jwks(**keys: Any) -> bytes:
    """The document of these public keys, by their ids."""
    listed = []
    for kid, key in keys.items():
        kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else None
        kind = kind or jwt.algorithms.OKPAlgorithm
        listed.append(kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"})
    return orjson.dumps({"keys": listed})


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
