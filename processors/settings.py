"""What a process is told by its environment: which servers, where its data lies, a few numbers.

Passwords in URLs never show: not in the repr of the settings, not in their errors; `masked` is how
a URL is printed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from processors.access.settings import AccessSettings
from streams.partition import PARTITIONS_DEFAULT, PARTITIONS_MAX

LEASE_S_DEFAULT = 5.0  # a dead worker's partitions are taken over after about so long
LEASE_S_MIN = 0.5  # below this, a slow fsync loses leases
LEASE_S_MAX = 300.0
SCHEMES = {"DATABASE_URL": ("postgresql", "postgres"), "REDIS_URL": ("redis", "rediss", "unix")}


class BadSettings(Exception):
    """The environment's settings cannot be used."""


class Addresses(NamedTuple):
    """The two servers that every process needs."""

    database_url: str
    redis_url: str

    def __repr__(self) -> str:
        return f"Addresses({masked(self.database_url)}, {masked(self.redis_url)})"

    def environment(self) -> dict[str, str]:
        """The variables that tell a child process about them: never on a command line."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}


class Settings(AccessSettings):
    """DATABASE_URL and REDIS_URL (both, or neither for embedded servers), and AGENTCORE_…"""

    model_config = SettingsConfigDict(
        env_prefix="AGENTCORE_",
        hide_input_in_errors=True,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
    )

    database_url: str | None = Field(None, validation_alias="DATABASE_URL", repr=False)
    redis_url: str | None = Field(None, validation_alias="REDIS_URL", repr=False)
    home: Path | None = None
    """Where embedded servers keep their data; None is the user's data directory."""
    partitions: int = Field(PARTITIONS_DEFAULT, ge=1, le=PARTITIONS_MAX)
    """How many partitions a new database gets; an existing one keeps its own."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    lease_s: float = Field(LEASE_S_DEFAULT, ge=LEASE_S_MIN, le=LEASE_S_MAX)
    kek: str | None = Field(None, validation_alias="ORCHESTRATOR_KEK", repr=False)
    """Key-encryption keys in base64 between commas: the first wraps tenants' keys, all unwrap."""
    kek_file: Path | None = Field(None, validation_alias="ORCHESTRATOR_KEK_FILE")
    """The same from a file that only its owner may read; it may change under a running process."""
    tenant_keys: str | None = Field(None, validation_alias="ORCHESTRATOR_TENANT_KEYS", repr=False)
    """Tenants' own keys, as `orchestrator tenant key` exports them: for hosts without a database.
    """
    metrics_port: int | None = Field(None, ge=1, le=65_535)
    """Where a worker serves /metrics, /live and /ready; None serves nothing."""
    metrics_host: str = "127.0.0.1"
    """Which of the machine's addresses it listens on; 0.0.0.0 is all of them."""
    api_port: int = Field(8002, ge=0, le=65_535)
    """Where the HTTP interface listens; 0 is any free port."""
    api_host: str = "127.0.0.1"
    api_cors_origins: list[str] = Field([], max_length=100)
    """Origins whose pages may call the HTTP interface, as a JSON list; none by default."""
    api_wait_s: float = Field(10.0, gt=0, le=300)
    """How long a request waits for its command's outcome."""
    api_connections: int = Field(8, ge=1, le=200)
    """To PostgreSQL, for the reads of one gateway."""
    api_sockets: int = Field(2_000, ge=1, le=100_000)
    """How many WebSockets one gateway keeps open; more are told to come back."""
    api_rate: float = Field(2_000.0, gt=0, le=1e6)
    """How many requests a second one gateway answers for one tenant."""
    tenant_executions: int = Field(100_000, ge=1, le=10**9)
    """How many executions of one tenant may be under way at once."""
    tenant_agents: int = Field(20_000, ge=1, le=10**9)
    """How many agents one tenant may have."""
    tenant_events_per_s: float | None = Field(None, gt=0, le=1e9)
    """How many events a second one worker makes for one tenant; None is as many as it can."""

    @field_validator(
        *("database_url", "redis_url", "metrics_port", "kek", "kek_file", "tenant_keys"),
        "tenant_events_per_s",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        """`DATABASE_URL= orchestrator demo` is how a shell unsets a variable for one command."""
        return None if value == "" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        given = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        missing = [name for name, url in given.items() if url is None]
        if len(missing) == 1:
            raise ValueError(f"{missing[0]} is missing: set both URLs, or neither")
        for name, url in given.items():
            if url is not None and urlsplit(url).scheme not in SCHEMES[name]:
                raise ValueError(f"{name} must begin with {SCHEMES[name][0]}://")
        return self

    @property
    def addresses(self) -> Addresses | None:
        """The servers that were given; None means embedded ones."""
        if self.database_url is None or self.redis_url is None:
            return None
        return Addresses(self.database_url, self.redis_url)

    def key_environment(self) -> dict[str, str]:
        """The variables that tell a child process about the key-encryption keys."""
        said = {"ORCHESTRATOR_KEK": self.kek, "ORCHESTRATOR_KEK_FILE": self.kek_file}
        return {name: str(value) for name, value in said.items() if value is not None}

    def at(self, addresses: Addresses) -> Settings:
        """The same settings, with these servers."""
        return self.model_copy(update=addresses._asdict())


def read_settings() -> Settings:
    """The settings of this process; raises BadSettings with one sentence a mistake."""
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings("; ".join(_sentence(dict(e)) for e in error.errors())) from None


def _sentence(error: dict[str, object]) -> str:
    place = error["loc"]
    name = str(place[0]) if isinstance(place, tuple) and place else ""
    text = str(error["msg"]).removeprefix("Value error, ")
    if not name:
        return f"{text.removesuffix('.')}."
    name = name if name.isupper() else f"AGENTCORE_{name.upper()}"
    return f"{name}: {text.removesuffix('.')}."


def masked(url: str) -> str:
    """The URL with *** in place of its password, wherever it stands."""
    in_query = re.sub(r"([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", url)
    return re.sub(r"(://[^:/?#@]*):[^@/]*@", r"\1:***@", in_query)
