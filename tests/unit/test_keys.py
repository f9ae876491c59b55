"""Where a process has its keys from, and what it says when it has none (R60)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from processors.keys import exported_keyring, kek_file, kms_of, make_kek, with_kek
from processors.settings import BadSettings, Settings, read_settings
from streams.sealing.kms import encode_key, read_file

KEY = encode_key(bytes(range(32)))
URLS: dict[str, Any] = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h"}


def test_with_own_servers_and_no_key_sealing_is_off(tmp_path: Path) -> None:
    assert kms_of(Settings(home=tmp_path, **URLS)) is None
    make_kek(tmp_path)  # of an engine that does not run here
    assert kms_of(Settings(home=tmp_path, **URLS)) is None


def test_embedded_servers_have_a_key_beside_them(tmp_path: Path) -> None:
    """Made once, for its owner only; the commands on this machine find it."""
    settings = Settings(home=tmp_path)
    assert kms_of(settings) is None
    told = with_kek(settings, tmp_path)
    assert told.kek_file == tmp_path / "kek"
    assert told.key_environment() == {"ORCHESTRATOR_KEK_FILE": str(tmp_path / "kek")}
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o600
    before = read_file(tmp_path / "kek")
    assert with_kek(settings, tmp_path).kek_file == told.kek_file
    assert read_file(tmp_path / "kek") == before
    assert kek_file(settings) == tmp_path / "kek"
    assert kms_of(settings) is not None


def test_what_is_given_goes_before_what_is_found(tmp_path: Path) -> None:
    make_kek(tmp_path)
    given = Settings(home=tmp_path, kek=KEY)
    assert kek_file(given) is None
    assert with_kek(given, tmp_path) is given
    other = tmp_path / "other"
    assert kek_file(Settings(home=tmp_path, kek_file=other)) == other


@pytest.mark.parametrize("text", ["short", f"{KEY},x"])
def test_a_bad_key_is_named_and_not_shown(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_KEK", text)
    settings = read_settings()
    assert text not in repr(settings)
    with pytest.raises(BadSettings, match="ORCHESTRATOR_KEK: Key") as refused:
        kms_of(settings)
    assert text not in str(refused.value)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(KEY)
    os.chmod(path, 0o644)
    with pytest.raises(BadSettings, match="ORCHESTRATOR_KEK_FILE: Others may read"):
        kms_of(Settings(kek_file=path, **URLS))


def test_exported_keys_are_taken_and_bad_ones_named() -> None:
    assert exported_keyring(None) is None
    assert exported_keyring("") is None
    assert exported_keyring(f"acme:1:{KEY}") is not None
    with pytest.raises(BadSettings, match="ORCHESTRATOR_TENANT_KEYS: Key 1"):
        exported_keyring("acme")
