"""Settings come from the environment, are checked at once, and never show a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.running import AlreadyRunning, NotRunning, announce, announced, find
from processors.settings import Addresses, BadSettings, masked, read_settings

DATABASE_URL = "postgresql://engine:s3cret@db.example:5432/agentcore?application_name=x"
REDIS_URL = "redis://:s3cret@cache.example:6379/0"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = ("PARTITIONS", "LEASE_S", "METRICS_PORT", "METRICS_HOST")
    for name in ("DATABASE_URL", "REDIS_URL", *(f"AGENTCORE_{one}" for one in mine)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTCORE_HOME", str(tmp_path))


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_nothing_given_means_embedded_servers() -> None:
    settings = read_settings()
    assert settings.addresses is None
    assert (settings.partitions, settings.lease_s, settings.log_level) == (16, 5.0, "INFO")


def test_both_urls_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATABASE_URL=DATABASE_URL, REDIS_URL=REDIS_URL)
    assert read_settings().addresses == Addresses(DATABASE_URL, REDIS_URL)


def test_metrics_are_served_only_where_a_port_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, AGENTCORE_METRICS_PORT="")
    assert read_settings().metrics_port is None
    given(monkeypatch, AGENTCORE_METRICS_PORT="9464")
    settings = read_settings()
    assert (settings.metrics_host, settings.metrics_port) == ("127.0.0.1", 9464), "this machine's"
    given(monkeypatch, AGENTCORE_METRICS_HOST="0.0.0.0")
    assert read_settings().metrics_host == "0.0.0.0"
    given(monkeypatch, AGENTCORE_METRICS_PORT="70000")
    with pytest.raises(BadSettings, match="AGENTCORE_METRICS_PORT"):
        read_settings()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DATABASE_URL": DATABASE_URL}, "REDIS_URL is missing"),
        ({"REDIS_URL": REDIS_URL}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "mysql://s3cret", "REDIS_URL": REDIS_URL}, "must begin with postgresql:"),
        ({"AGENTCORE_PARTITIONS": "0"}, "AGENTCORE_PARTITIONS"),
        ({"AGENTCORE_PARTITIONS": "many"}, "AGENTCORE_PARTITIONS"),
        ({"AGENTCORE_LEASE_S": "0.01"}, "AGENTCORE_LEASE_S"),
        ({"AGENTCORE_LOG_LEVEL": "loud"}, "AGENTCORE_LOG_LEVEL"),
    ],
)
def test_a_mistake_is_one_sentence_without_the_value(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    given(monkeypatch, **variables)
    with pytest.raises(BadSettings, match=sentence) as refused:
        read_settings()
    assert "s3cret" not in str(refused.value)


def test_an_empty_url_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATABASE_URL="", REDIS_URL="")
    assert read_settings().addresses is None


def test_no_representation_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATABASE_URL=DATABASE_URL, REDIS_URL=REDIS_URL)
    settings = read_settings()
    for shown in (repr(settings), str(settings), repr(settings.addresses)):
        assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("postgresql://u:p:w@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("postgresql:///db?host=/tmp&password=pw", "postgresql:///db?host=/tmp&password=***"),
        ("unix:///run/redis.sock?password=pw&db=1", "unix:///run/redis.sock?password=***&db=1"),
    ],
)
def test_masked_urls_keep_all_but_the_password(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_running_engine_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        find(read_settings())
    addresses = Addresses(DATABASE_URL, REDIS_URL)
    with announce(tmp_path, addresses):
        assert find(read_settings()) == addresses
        [file] = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        left_behind = file.read_bytes()
    assert not file.exists()
    file.write_bytes(left_behind)  # as a killed engine leaves it: written, and locked by nobody
    assert announced(tmp_path) is None


def test_two_engines_cannot_share_a_directory(tmp_path: Path) -> None:
    addresses = Addresses(DATABASE_URL, REDIS_URL)
    with (
        announce(tmp_path, addresses),
        pytest.raises(AlreadyRunning, match="stop that one first"),
        announce(tmp_path, addresses),
    ):
        pass
