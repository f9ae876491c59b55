"""A tenant: whose payloads are sealed under keys of its own, until it is erased.

Erasing takes the keys away: what they sealed cannot be read any more, by anybody. The log keeps its
structure and its hash chain, and here stands who did it, when, and why. Tenants need not be created
before they are used; keys themselves are in no event.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from aggregates.decider import Blueprint, Decider
from aggregates.problem import DETAIL_CHARS_MAX, Refused, bounded
from streams.codec import TENANT as TENANT_ID

NAME_CHARS_MAX = 200
VERSION_MAX = 10**9 - 1


@dataclass(slots=True)
class CreateTenant:
    """Give a tenant a name that people know it by."""

    name: str = ""
    _actor: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class RotateTenantKey:
    """Say that this version of the tenant's data key seals from now on; it exists already."""

    version: int
    reason: str = ""
    _actor: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class EraseTenant:
    """Make all payloads of the tenant unreadable, for ever."""

    reason: str
    _actor: str | None = field(default=None, repr=False)


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class TenantCreated:
    by: str
    name: str


@dataclass(slots=True)
class TenantKeyRotated:
    by: str
    version: int
    reason: str


@dataclass(slots=True)
class TenantErased:
    by: str
    reason: str


@dataclass(slots=True)
class Tenant:
    """Which version of its key seals, as far as people changed it, and whether it is erased."""

    id: str
    created: bool = False
    name: str = ""
    version: int = 1
    erased: bool = False


def decide(state: Tenant, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    if not TENANT_ID.fullmatch(state.id):
        raise Refused("INVALID_ID", "A tenant has 1 to 64 letters, digits, `.`, `_` or `-`.")
    by = command._actor
    if not by:
        raise Refused("MISSING_ACTOR", "Say who decides, in the envelope's `actor`.")
    match command:
        case EraseTenant():
            return [] if state.erased else [TenantErased(by, _reason(command.reason))]
        case _ if state.erased:
            raise Refused("TENANT_ERASED", f"The tenant {state.id} was erased.")
        case CreateTenant():
            if len(command.name) > NAME_CHARS_MAX:
                raise Refused("TOO_LARGE", f"A name has {NAME_CHARS_MAX} characters.", "/name")
            name = bounded(command.name) or state.id
            return [] if state.created and state.name == name else [TenantCreated(by, name)]
        case RotateTenantKey():
            if not 1 <= command.version <= VERSION_MAX:
                raise Refused("INVALID_VALUE", "`version` counts 1, 2, 3 …", "/version")
            if command.version <= state.version:
                return []
            return [TenantKeyRotated(by, command.version, bounded(command.reason))]
    raise Refused("UNKNOWN_COMMAND", f"A tenant cannot {type(command).__name__}.")


def _reason(reason: str) -> str:
    if not reason.strip():
        raise Refused("MISSING_FIELD", "Say why: give a `reason`.", "/reason")
    if len(reason) > DETAIL_CHARS_MAX:
        raise Refused("TOO_LARGE", f"Give the reason in {DETAIL_CHARS_MAX} characters.", "/reason")
    return bounded(reason)


def evolve(state: Tenant, event: Any) -> Tenant:
    """The state after a fact; never fails, never judges."""
    match event:
        case TenantCreated():
            state.created, state.name = True, event.name
        case TenantKeyRotated():
            state.version = event.version
        case TenantErased():
            state.erased = True
    return state


def dump(state: Tenant) -> dict[str, Any]:
    """The state as JSON-able data."""
    said = asdict(state)
    del said["id"]
    return said


def load(root: str, data: Any, _: Blueprint | None) -> Tenant:
    """The state that `dump` described."""
    return Tenant(root, **data)


TENANT = Decider(
    name="tenant",
    commands=(CreateTenant, RotateTenantKey, EraseTenant),
    events=(TenantCreated, TenantKeyRotated, TenantErased),
    initial=Tenant,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
)
