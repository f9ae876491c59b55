"""Where a process has its keys from: its environment, a file, or the data of a running engine.

Without any, sealing is off: what comes in clear is stored in clear, and what is sealed stays so.
"""

from __future__ import annotations

from pathlib import Path

from processors.running import home
from processors.settings import BadSettings, Settings
from streams.logs.postgres import PostgresLog
from streams.sealing.keyring import Keyring
from streams.sealing.kms import BadKey, Kms, LocalKms, decode_keys, new_key, read_file, write_file
from streams.sealing.store import TableKeys, parse

FILE = "kek"
"""In the data of embedded servers: the key-encryption keys, which `orchestrator up` makes."""


def kek_file(settings: Settings) -> Path | None:
    """The file that holds the key-encryption keys, if they are in one."""
    if settings.kek is not None:
        return None
    if settings.kek_file is not None:
        return settings.kek_file.expanduser()
    if settings.addresses is None and (path := home(settings) / FILE).exists():
        return path
    return None


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


def make_kek(directory: Path) -> Path:
    """The key-encryption key of an engine of one's own; made once, and kept beside its data."""
    path = directory / FILE
    if not path.exists():
        write_file(path, [new_key()])
    return path
