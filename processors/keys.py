"""Where a process has its keys from: its environment, a file, or the data of a running engine.

Without any, sealing is off: what comes in clear is stored in clear, and what is sealed stays so.
"""

from __future__ import annotations

from pathlib import Path

from processors.running import announced, home
from processors.settings import BadSettings, Settings
from streams.logs.postgres import PostgresLog
from streams.sealing.keyring import Keyring
from streams.sealing.kms import (
    BadKey,
    Kms,
    LocalKms,
    Wrapped,
    decode_keys,
    new_key,
    read_file,
    write_file,
)
from streams.sealing.sealer import Unopenable
from streams.sealing.store import Row, TableKeys, context, parse

WRAPPED = """
SELECT DISTINCT ON (kek) tenant, version, kek, wrapped FROM tenant_keys
WHERE wrapped IS NOT NULL ORDER BY kek, tenant
"""
"""One data key of each key-encryption key."""

SEALING_OFF = (
    "Payloads are stored in clear: set ORCHESTRATOR_KEK or ORCHESTRATOR_KEK_FILE"
    " (openssl rand -base64 32), and they are sealed."
)

FILE = "kek"
"""In the data of embedded servers: the key-encryption keys, which `orchestrator up` makes."""


def kek_file(settings: Settings) -> Path | None:
    """The file that holds the key-encryption keys, if they are in one."""
    if settings.kek is not None:
        return None
    if settings.kek_file is not None:
        return settings.kek_file.expanduser()
    directory = home(settings)
    ours = settings.addresses is None or settings.addresses == announced(directory)
    return path if ours and (path := directory / FILE).exists() else None


def kms_of(settings: Settings) -> Kms | None:
    """Whoever wraps tenants' keys; None where sealing is off. Raises BadSettings."""
    try:
        if (text := settings.kek) is not None:
            keys = decode_keys(text)
            return LocalKms(lambda: keys)
        if (path := kek_file(settings)) is not None:
            return LocalKms(lambda: read_file(path))
    except BadKey as error:
        name = "ORCHESTRATOR_KEK" if settings.kek else "ORCHESTRATOR_KEK_FILE"
        raise BadSettings(f"{name}: {error}") from None
    return None


def keyring_of(settings: Settings, log: PostgresLog) -> Keyring | None:
    """The tenants' keys in the log's database; None where sealing is off."""
    kms = kms_of(settings)
    return None if kms is None else Keyring(TableKeys(log, kms))


def exported_keyring(text: str | None) -> Keyring | None:
    """The keys that `orchestrator tenant key` has exported, for hosts without a database."""
    if not text:
        return None
    try:
        return Keyring(parse(text))
    except BadKey as error:
        raise BadSettings(f"ORCHESTRATOR_TENANT_KEYS: {error}") from None


def with_kek(settings: Settings, directory: Path) -> Settings:
    """The settings of an engine with its own servers: its key-encryption key lies beside them."""
    if settings.addresses is not None or settings.kek is not None or settings.kek_file is not None:
        return settings
    return settings.model_copy(update={"kek_file": make_kek(directory)})


async def check(settings: Settings, log: PostgresLog) -> None:
    """Refuse to begin where tenants' keys cannot be unwrapped; raises BadSettings.

    A key that got lost is noticed here, and not when the first payload cannot be read.
    """
    kms = kms_of(settings)
    if kms is None:
        return
    wrapped = await log.fetch(WRAPPED)
    for row in map(Row._make, wrapped):
        assert row.wrapped is not None
        try:
            context_of = context(row.tenant, row.version)
            await kms.unwrap(Wrapped(row.kek, row.wrapped), context_of)
        except Unopenable as error:
            raise BadSettings(f"The key of the tenant {row.tenant!r}: {error}") from None


def make_kek(directory: Path) -> Path:
    """The key-encryption key of an engine of one's own; made once, and kept beside its data."""
    path = directory / FILE
    if not path.exists():
        write_file(path, [new_key()])
    return path
