"""Tenants' sealers in memory, for a bounded time: what a process may seal and open just now.

A key is read again when it is FRESH_S old and forgotten when it is KEEP_S old, so that an erased
tenant's payloads are unreadable in every process after that, also where the database is away.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from streams.log import LogUnavailable
from streams.message import DEFAULT_TENANT
from streams.sealing.sealer import ERASED, WRONG_KEY, Sealer, Unopenable
from streams.sealing.store import KeyStore

FRESH_S = 10.0  # one query a process, for all tenants that are due
KEEP_S = 30.0  # what is stated for an erased tenant's keys
TENANTS_MAX = 10_000  # in memory, the least recently read leaving first

logger = structlog.get_logger(__name__)


class Held(NamedTuple):
    """A tenant's sealer as of a time; None for one that was erased or whose key is not ours."""

    sealer: Sealer | None
    read_at: float
    why: Unopenable | None = None


class Keyring:
    """The sealers of one process."""

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._held: OrderedDict[str, Held] = OrderedDict()

    def held(self, tenant: str) -> Sealer | None:
        """What can be sealed and opened with at once; None before `hold`, and if there is none."""
        held = self._held.get(tenant)
        if held is None or self._clock() - held.read_at > KEEP_S:
            return None
        return held.sealer

    def why_not(self, tenant: str) -> Unopenable:
        """Why `held` gives nothing."""
        held = self._held.get(tenant)
        if held is not None and held.why is not None:
            return held.why
        return Unopenable(WRONG_KEY, f"There is no key of the tenant {tenant!r} here.")

    def lacks(self, tenant: str) -> bool:
        """Whether `hold` would have to read."""
        held = self._held.get(tenant)
        return held is None or self._clock() - held.read_at > FRESH_S

    async def hold(self, tenants: Iterable[str], create: bool = True) -> None:
        """Have these tenants' sealers at hand; new tenants get their first key.

        Raises LogUnavailable, where nothing is changed.
        """
        wanted = {tenant for tenant in tenants if self.lacks(tenant)}
        if not wanted:
            return
        await self._count()
        now = self._clock()
        found = await self._load(wanted)
        if create and (missing := sorted(wanted - found.keys())):
            for tenant in missing:
                await self.store.create(tenant)
            found |= await self._load(missing)
        for tenant in wanted:
            self._put(tenant, found.get(tenant, _none(tenant)), now)

    async def sealer(self, tenant: str, create: bool = True) -> Sealer:
        """A tenant's sealer; raises Unopenable or LogUnavailable."""
        await self.hold([tenant], create)
        sealer = self.held(tenant)
        if sealer is None:
            raise self.why_not(tenant)
        return sealer

    async def any_sealer(self, tenant: str | None) -> Sealer:
        """For what may be nobody's: the tenant's where it has keys, else the default tenant's."""
        if tenant:
            await self.hold([tenant], create=False)
            if sealer := self.held(tenant):
                return sealer
        return await self.sealer(DEFAULT_TENANT)

    def forget(self, tenant: str) -> None:
        """Read this tenant's keys anew when they are wanted."""
        self._held.pop(tenant, None)

    async def run(self) -> None:
        """Keep what is in memory fresh, and drop what cannot be, until cancelled."""
        while True:
            await asyncio.sleep(FRESH_S / 2)
            await self.refresh()

    async def refresh(self) -> None:
        """Read again what is due; forget what is too old."""
        now = self._clock()
        try:
            await self.hold([t for t in self._held if self.lacks(t)], create=False)
        except LogUnavailable as error:
            logger.warning("keys_not_read", error=str(error)[:200])
        for tenant in [t for t, held in self._held.items() if now - held.read_at > KEEP_S]:
            self.forget(tenant)

    async def _load(self, tenants: Iterable[str]) -> dict[str, Sealer | Unopenable]:
        """One query for all; where a key does not unwrap, only its tenant is without."""
        tenants = list(tenants)
        try:
            keys = await self.store.load(tenants)
        except Unopenable as error:
            if len(tenants) == 1:
                logger.error("key_not_unwrapped", tenant=tenants[0], error=str(error))
                return {tenants[0]: error}
            found: dict[str, Sealer | Unopenable] = {}
            for tenant in tenants:
                found |= await self._load([tenant])
            return found
        return {
            tenant: Unopenable(ERASED) if versions is None else self._sealer(tenant, versions)
            for tenant, versions in keys.items()
        }

    def _sealer(self, tenant: str, versions: dict[int, bytes]) -> Sealer:
        """The sealer that is there, if it has these versions."""
        held = self._held.get(tenant)
        if held is not None and held.sealer is not None and held.sealer.versions == set(versions):
            return held.sealer
        return Sealer(tenant, versions)

    def _put(self, tenant: str, found: Sealer | Unopenable, now: float) -> None:
        if isinstance(found, Sealer):
            self._held[tenant] = Held(found, now)
        else:
            self._held[tenant] = Held(None, now, found)
        self._held.move_to_end(tenant)
        while len(self._held) > TENANTS_MAX:
            self._held.popitem(last=False)

    async def _count(self) -> None:
        """Tell the store how often we have sealed."""
        seals = {}
        for tenant, held in self._held.items():
            if held.sealer is not None and held.sealer.sealed:
                seals[tenant, held.sealer.version] = held.sealer.sealed
                held.sealer.sealed = 0
        if seals:
            await self.store.count(seals)


def _none(tenant: str) -> Unopenable:
    return Unopenable(WRONG_KEY, f"There is no key of the tenant {tenant!r} here.")
