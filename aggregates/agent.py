"""An agent: who can be asked, in which roles, with which capabilities and how much at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from aggregates.decider import Blueprint, Decider
from aggregates.problem import Refused

ROLES_MAX = 1_000
CAPACITY_MAX = 100_000


@dataclass(slots=True)
class RegisterAgent:
    """Make an agent known, or change what is known of it; `card` is its A2A agent card."""

    name: str
    roles: list[str]
    capabilities: list[str] = field(default_factory=list)
    capacity: int = 1
    card: dict[str, Any] | None = None


@dataclass(slots=True)
class DrainAgent:
    """Give it nothing new; what it has may finish."""

    reason: str = ""


@dataclass(slots=True)
class DeregisterAgent:
    """Forget the agent."""

    reason: str = ""


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class AgentRegistered:
    name: str
    roles: list[str]
    capabilities: list[str]
    capacity: int
    card: dict[str, Any] | None = None


@dataclass(slots=True)
class AgentDrained:
    reason: str


@dataclass(slots=True)
class AgentDeregistered:
    reason: str


@dataclass(slots=True)
class Agent:
    """What was registered last, and whether the agent takes work."""

    id: str
    status: str = "unknown"
    registered: AgentRegistered | None = None


def decide(state: Agent, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    match command:
        case RegisterAgent():
            if not 1 <= len(command.roles) <= ROLES_MAX:
                raise Refused("INVALID_VALUE", f"Give 1 to {ROLES_MAX} roles.", "/roles")
            if not 1 <= command.capacity <= CAPACITY_MAX:
                raise Refused(
                    "INVALID_VALUE", f"Give 1 to {CAPACITY_MAX} as capacity.", "/capacity"
                )
            event = AgentRegistered(
                command.name, command.roles, command.capabilities, command.capacity, command.card
            )
            return [] if (state.status, state.registered) == ("active", event) else [event]
        case DrainAgent():
            _known(state)
            return [AgentDrained(command.reason)] if state.status == "active" else []
        case DeregisterAgent():
            _known(state)
            return [] if state.status == "deregistered" else [AgentDeregistered(command.reason)]
    raise Refused("UNKNOWN_COMMAND", f"An agent cannot {type(command).__name__}.")


def _known(state: Agent) -> None:
    if state.registered is None:
        raise Refused("UNKNOWN_AGENT", f"There is no agent {state.id}; register it first.")


def evolve(state: Agent, event: Any) -> Agent:
    """The state after a fact; never fails, never judges."""
    match event:
        case AgentRegistered():
            state.status, state.registered = "active", event
        case AgentDrained():
            state.status = "draining"
        case AgentDeregistered():
            state.status = "deregistered"
    return state


def dump(state: Agent) -> dict[str, Any]:
    """The state as JSON-able data."""
    return {
        "status": state.status,
        "registered": asdict(state.registered) if state.registered else None,
    }


def load(root: str, data: Any, _: Blueprint | None) -> Agent:
    """The state that `dump` described."""
    registered = data["registered"]
    return Agent(root, data["status"], AgentRegistered(**registered) if registered else None)


AGENT = Decider(
    name="agent",
    commands=(RegisterAgent, DrainAgent, DeregisterAgent),
    events=(AgentRegistered, AgentDrained, AgentDeregistered),
    initial=Agent,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
)
