"""Keys that an issuer publishes: a JWKS document in a file or at an address, read again and again.

What cannot be read changes nothing: the keys that are known stay. A token that names an unknown key
has the document read at once, though not more often than every AGAIN_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog

from processors.access.keys import from_jwks
from processors.access.settings import BadKey
from processors.access.tokens import Tokens
from streams.ending import end

REFRESH_S = 300.0  # how long a key is still accepted that the issuer has withdrawn
AGAIN_S = 10.0  # between two reads that unknown keys ask for
TIMEOUT_S = 3.0
DOCUMENT_BYTES_MAX = 1024 * 1024

logger = structlog.get_logger(__name__)

Read = Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class PublishedKeys:
    """Keeps the keys of one document in a keyring."""

    tokens: Tokens
    read: Read
    clock: Callable[[], float] = time.monotonic
    _document: bytes = b""
    _looked: float = float("-inf")
    _task: asyncio.Task[None] | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def start(self) -> None:
        """Read the document, and from then on now and then; raises BadKey."""
        await self._refresh()
        self._task = asyncio.create_task(self._run(), name="published keys")

    async def stop(self) -> None:
        """Read no more."""
        await end(self._task)
        self._task = None

    async def renewed(self) -> bool:
        """Look for newer keys, unless that was done a moment ago; whether there were some."""
        async with self._turn:
            if self.clock() - self._looked < AGAIN_S:
                return False
            try:
                return await self._refresh()
            except BadKey as error:
                logger.warning("keys_not_renewed", error=str(error))
                return False

    async def _refresh(self) -> bool:
        self._looked = self.clock()
        document = await self.read()
        if document == self._document:
            return False
        self.tokens.keys.publish(from_jwks(document))
        self.tokens.forget()
        self._document = document
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.renewed()


def reader(source: str) -> Read:
    """Reads a document from a file or an address; raises BadKey."""
    return _from_address(source) if "://" in source else _from_file(Path(source))


def _from_file(path: Path) -> Read:
    path = path.expanduser()

    async def read() -> bytes:
        try:
            raw = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise BadKey(f"{path} cannot be read: {error.strerror}.") from None
        return raw[:DOCUMENT_BYTES_MAX]

    return read


def _from_address(address: str) -> Read:
    async def read() -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(address, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise BadKey(f"The address of the keys answered {answer.status}.")
                document = bytearray()
                async for chunk in answer.content.iter_any():
                    document += chunk
                    if len(document) > DOCUMENT_BYTES_MAX:
                        raise BadKey("The document of the keys is too large.")
                return bytes(document)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BadKey(f"The address of the keys: {type(error).__name__}.") from None

    return read
