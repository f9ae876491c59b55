"""Where wrapped data keys are kept: a table that all processes share, or what one was given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from streams.logs.postgres import PostgresLog
from streams.sealing.kms import BadKey, Kms, Wrapped, decode_keys, encode_key, new_key

KEYS = """
SELECT tenant, version, kek, wrapped FROM tenant_keys WHERE tenant = ANY($1::text[])
ORDER BY tenant, version
"""
"""All versions of some tenants' keys; those of erased ones are NULL."""

ADD = "SELECT add_tenant_key($1, $2, $3, $4)"
"""Another version, unless somebody else has added it, or the tenant was erased."""

COUNT = """
UPDATE tenant_keys AS k SET seals = k.seals + n.seals
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS n(tenant, version, seals)
WHERE k.tenant = n.tenant AND k.version = n.version
"""
"""How often keys have sealed."""

ALL = """
SELECT tenant, version, kek, seals, created_at, erased_at FROM tenant_keys
ORDER BY tenant, version
"""
"""Every key, without itself."""

NOT_UNDER = """
SELECT tenant, version, kek, wrapped FROM tenant_keys
WHERE wrapped IS NOT NULL AND kek <> $1 ORDER BY tenant, version LIMIT $2
"""
"""Keys that another key-encryption key has wrapped."""

REWRAP = """
UPDATE tenant_keys SET kek = $4, wrapped = $5
WHERE tenant = $1 AND version = $2 AND kek = $3 AND wrapped IS NOT NULL
"""
"""The same key, wrapped anew; nothing where it was erased or rewrapped meanwhile."""

REWRAPPED_AT_ONCE = 500


class Row(NamedTuple):
    """One version of a tenant's key; without bytes once it is erased."""

    tenant: str
    version: int
    kek: str
    wrapped: bytes | None


class KeyStore(Protocol):
    """Where data keys are asked for."""

    async def load(self, tenants: Iterable[str]) -> dict[str, dict[int, bytes] | None]:
        """The keys of those that have some, by version; None for an erased one."""

    async def create(self, tenant: str, version: int = 1) -> None:
        """Add a version, unless it is there or the tenant was erased."""

    async def count(self, seals: Mapping[tuple[str, int], int]) -> None:
        """Note how often (tenant, version) has sealed more."""


class TableKeys:
    """The table `tenant_keys`; raises LogUnavailable, and Unopenable where no KEK fits."""

    def __init__(self, log: PostgresLog, kms: Kms) -> None:
        self._log = log
        self.kms = kms

    async def load(self, tenants: Iterable[str]) -> dict[str, dict[int, bytes] | None]:
        """See `KeyStore.load`."""
        rows = [Row(*row) for row in await self._log.fetch(KEYS, list(tenants))]
        found: dict[str, dict[int, bytes] | None] = {}
        for row in rows:
            if row.wrapped is None:
                found[row.tenant] = None
            elif (keys := found.setdefault(row.tenant, {})) is not None:
                wrapped = Wrapped(row.kek, row.wrapped)
                keys[row.version] = await self.kms.unwrap(wrapped, context(row.tenant, row.version))
        return found

    async def create(self, tenant: str, version: int = 1) -> None:
        """See `KeyStore.create`."""
        wrapped = await self.kms.wrap(new_key(), context(tenant, version))
        await self._log.fetch(ADD, tenant, version, wrapped.kek, wrapped.key)

    async def count(self, seals: Mapping[tuple[str, int], int]) -> None:
        """See `KeyStore.count`."""
        if seals:
            names = list(seals)
            versions = [version for _, version in names]
            await self._log.fetch(
                COUNT, [name for name, _ in names], versions, list(seals.values())
            )

    async def rewrap(self) -> int:
        """Wrap every data key with the newest key-encryption key; returns how many there were."""
        current, done = await self.kms.current(), 0
        while rows := await self._log.fetch(NOT_UNDER, current, REWRAPPED_AT_ONCE):
            for row in [Row(*each) for each in rows]:
                assert row.wrapped is not None
                said = context(row.tenant, row.version)
                key = await self.kms.unwrap(Wrapped(row.kek, row.wrapped), said)
                fresh = await self.kms.wrap(key, said)
                arguments = (row.tenant, row.version, row.kek, fresh.kek, fresh.key)
                await self._log.fetch(REWRAP, *arguments)
                done += 1
        return done


class GivenKeys:
    """Keys that a process was given, for some tenants: so for agent hosts without a database."""

    def __init__(self, keys: Mapping[str, Mapping[int, bytes]]) -> None:
        self._keys = {tenant: dict(versions) for tenant, versions in keys.items()}

    async def load(self, tenants: Iterable[str]) -> dict[str, dict[int, bytes] | None]:
        """See `KeyStore.load`."""
        return {tenant: self._keys[tenant] for tenant in tenants if tenant in self._keys}

    async def create(self, tenant: str, version: int = 1) -> None:
        """Nobody can: who has no database adds no keys."""

    async def count(self, seals: Mapping[tuple[str, int], int]) -> None:
        """Nobody asks."""


def context(tenant: str, version: int) -> str:
    """What a wrapped key is bound to."""
    return f"{tenant}/{version}"


def export(tenant: str, keys: Mapping[int, bytes]) -> str:
    """A tenant's keys as one text, for `parse`."""
    return ",".join(f"{tenant}:{version}:{encode_key(key)}" for version, key in keys.items())


def parse(text: str) -> GivenKeys:
    """The keys in what `export` gave, of any number of tenants; raises BadKey."""
    found: dict[str, dict[int, bytes]] = defaultdict(dict)
    for number, word in enumerate(text.replace(",", "\n").split(), 1):
        tenant, version, key = [*word.split(":"), "", "", ""][:3]
        if not tenant or not key or not version.isdecimal() or not 0 < int(version) < 10**9:
            raise BadKey(f"Key {number} is not <tenant>:<version>:<base64>.")
        [found[tenant][int(version)]] = decode_keys(key)
    return GivenKeys(found)
