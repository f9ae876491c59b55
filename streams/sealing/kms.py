"""The keys that wrap tenants' data keys: an interface for key services, and keys of our own.

Several may be known at once: the first wraps, the others only unwrap what is not rewrapped yet.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.sealing.sealer import KEY_BYTES, NONCE_BYTES, WRONG_KEY, Unopenable

FILE_BYTES_MAX = 4_096
KEYS_MAX = 16  # key-encryption keys at once; two are enough for a rotation


class BadKey(Exception):
    """A key-encryption key, or its file, cannot be used."""


class Wrapped(NamedTuple):
    """A wrapped data key, and the name of the key that wrapped it."""

    kek: str
    key: bytes


class Kms(Protocol):
    """Whoever wraps and unwraps data keys; `context` says whose they are, and binds them to it."""

    async def wrap(self, key: bytes, context: str) -> Wrapped:
        """Wrap with the newest key-encryption key."""

    async def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """The data key; raises Unopenable (WRONG_KEY)."""

    async def current(self) -> str:
        """The name of the key that wraps now."""


class LocalKms:
    """Key-encryption keys that this process was given; `read` gives them again from their place.

    A key that is not known makes it read them again, so that a file may change under a running
    process.
    """

    def __init__(self, read: Callable[[], Sequence[bytes]]) -> None:
        self._read = read
        self._keys: dict[str, AESGCM] = {}
        self._load()

    def _load(self) -> None:
        self._keys = {name_of(key): AESGCM(key) for key in self._read()}
        if not self._keys:
            raise BadKey("There is no key-encryption key.")

    async def current(self) -> str:
        """The first key's name."""
        self._load()
        return next(iter(self._keys))

    async def wrap(self, key: bytes, context: str) -> Wrapped:
        """AES-256-GCM with a random nonce: data keys are few."""
        name = await self.current()
        nonce = os.urandom(NONCE_BYTES)
        return Wrapped(name, nonce + self._keys[name].encrypt(nonce, key, _bound(name, context)))

    async def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """See `Kms.unwrap`."""
        if wrapped.kek not in self._keys:
            self._load()
        aead = self._keys.get(wrapped.kek)
        if aead is None:
            detail = f"The key-encryption key {wrapped.kek} is not known here."
            raise Unopenable(WRONG_KEY, detail)
        raw = wrapped.key
        try:
            return aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(wrapped.kek, context))
        except (InvalidTag, ValueError):
            raise Unopenable(WRONG_KEY, "A wrapped key was changed, or is another's.") from None


def name_of(key: bytes) -> str:
    """What a key-encryption key is called: it tells nothing of the key."""
    return sha256(b"agentcore kek\0" + key).hexdigest()[:12]


def new_key() -> bytes:
    """A fresh key, for data or for keys."""
    return os.urandom(KEY_BYTES)


def encode_key(key: bytes) -> str:
    """A key as text."""
    return b64encode(key).decode()


def decode_keys(text: str) -> list[bytes]:
    """Keys in base64 between commas or line ends, the newest first; raises BadKey."""
    keys = []
    for number, word in enumerate(text.replace(",", "\n").split(), 1):
        try:
            key = b64decode(word, validate=True)
        except (Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise BadKey(f"Key {number} is not {KEY_BYTES} bytes in base64 (openssl rand -base64).")
        keys.append(key)
    if not 1 <= len(keys) <= KEYS_MAX:
        raise BadKey(f"There are {len(keys)} key-encryption keys; 1 to {KEYS_MAX} may be.")
    return keys


def read_file(path: Path) -> list[bytes]:
    """The keys in a file that only its owner may read; raises BadKey."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise BadKey(f"The key file {path} cannot be read: {error.strerror}.") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise BadKey(f"Others may read the key file {path}: `chmod 600` it.")
        return decode_keys(os.read(descriptor, FILE_BYTES_MAX).decode(errors="replace"))
    finally:
        os.close(descriptor)


def write_file(path: Path, keys: Sequence[bytes]) -> None:
    """Put keys into a file that only we may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, "".join(f"{encode_key(key)}\n" for key in keys).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, path)


def _bound(name: str, context: str) -> bytes:
    return f"agentcore/kek/1\0{name}\0{context}".encode()
