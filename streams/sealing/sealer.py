"""AES-256-GCM under one tenant's data keys: seal with the newest, open with the one it was.

The associated data binds a ciphertext to its tenant, to what it belongs to (an execution) and to
its field, so that it cannot be put in another's place. The nonce is a keyed hash of all that is
sealed, and of a salt: 96 bits that repeat only where the very same thing is sealed again with the
same salt, which then gives the same bytes. So a command that is given twice under one id is
the same command, and a machine without good randomness endangers nothing.
"""

from __future__ import annotations

import os
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.sealing.token import IN_TEXT, MARK, is_sealed, is_sealed_text, named, parts, wrap

KEY_BYTES = 32
NONCE_BYTES = 12
SALT_BYTES = 16
SEALS_MAX = 2**32
"""Of one key version, after which two nonces might be the same (NIST SP 800-38D: 2^-33 then)."""

WRONG_KEY, ERASED, TAMPERED = "WRONG_KEY", "ERASED", "TAMPERED"
_WHY = {
    WRONG_KEY: "It was sealed with a key that is not known here.",
    ERASED: "The tenant was erased: its keys are gone, and what they sealed is unreadable.",
    TAMPERED: "It was changed, or it was sealed for another place.",
}

_CONTEXT = "agentcore/1"


class Unopenable(Exception):
    """A sealed value cannot be opened: `code` is WRONG_KEY, ERASED or TAMPERED."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        super().__init__(f"{code}: {detail or _WHY[code]}")


class Sealer:
    """Seals and opens for one tenant; `keys` are its data keys by version, the highest newest."""

    __slots__ = ("_keys", "sealed", "tenant", "version")

    def __init__(self, tenant: str, keys: Mapping[int, bytes]) -> None:
        self.tenant = tenant
        self.version = max(keys)
        self.sealed = 0
        """How often it has sealed, of SEALS_MAX."""
        self._keys = {
            version: (AESGCM(_derived(key, b"seal")), _derived(key, b"nonce"))
            for version, key in keys.items()
        }

    @property
    def versions(self) -> set[int]:
        """Which versions can be opened."""
        return set(self._keys)

    def seal(self, clear: bytes, subject: str, field: str, salt: bytes | None = None) -> str:
        """The token of these bytes. With the same salt (up to 64 bytes) the same bytes give it."""
        version = self.version
        aead, nonce_key = self._keys[version]
        bound = _bound(self.tenant, subject, field, version)
        salted = blake2b(bound, digest_size=NONCE_BYTES, key=nonce_key)
        salted.update(b"\0%d\0" % len(salt) + salt if salt else b"\0" + os.urandom(SALT_BYTES))
        salted.update(clear)
        nonce = salted.digest()
        self.sealed += 1
        text = b2a_base64(nonce + aead.encrypt(nonce, clear, bound), newline=False)
        return f"{version}.{field}.{text.decode()}"

    def open(self, token: str, subject: str, field: str | None = None) -> bytes:
        """What was sealed; raises Unopenable. Without `field`, whatever it says it is."""
        try:
            number, said, text = token.split(".", 2)
            version, raw = int(number), a2b_base64(text, strict_mode=True)
        except (ValueError, Error):
            raise Unopenable(TAMPERED) from None
        if field is not None and said != field:
            raise Unopenable(TAMPERED, f"It was sealed as {said[:16]}, not as {field}.")
        if version not in self._keys:
            raise Unopenable(WRONG_KEY, f"The key's version {version} is not known here.")
        aead, _ = self._keys[version]
        bound = _bound(self.tenant, subject, said, version)
        try:
            return aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise Unopenable(TAMPERED) from None

    # Values and texts ---------------------------------------------------------------------------

    def seal_value(
        self, value: Any, subject: str, field: str, salt: bytes | None = None
    ) -> dict[str, str]:
        """A JSON value, sealed; raises orjson.JSONEncodeError where it is none."""
        return wrap(self.seal(orjson.dumps(value), subject, field, salt))

    def open_value(self, value: Any, subject: str, field: str | None = None) -> Any:
        """The JSON value; one that is in clear is given back as it is. Raises Unopenable."""
        if not is_sealed(value):
            return value
        return orjson.loads(self.open(value[MARK], subject, field))

    def seal_text(self, text: str, subject: str, field: str, salt: bytes | None = None) -> str:
        """A text, sealed but for an error's name (see `token.named`)."""
        name, rest = named(text)
        if not rest:
            return text
        clear = rest.encode(errors="replace")
        return f"{name}{IN_TEXT}{self.seal(clear, subject, field, salt)}"

    def open_text(self, text: str, subject: str, field: str | None = None) -> str:
        """The text with all its sealed parts opened; raises Unopenable."""
        if not is_sealed_text(text):
            return text
        cut = parts(text)
        cut[1::2] = [self.open(token, subject, field).decode() for token in cut[1::2]]
        return "".join(cut)

    def __repr__(self) -> str:
        return f"Sealer({self.tenant!r}, version {self.version})"


def _bound(tenant: str, subject: str, field: str, version: int) -> bytes:
    """No part can hold a NUL but the subject, whose end is known by what follows it."""
    return f"{_CONTEXT}\0{tenant}\0{field}\0{version}\0{subject}".encode()


def _derived(key: bytes, use: bytes) -> bytes:
    """A key of its own for each use of a data key."""
    return blake2b(digest_size=KEY_BYTES, key=key, person=use).digest()
