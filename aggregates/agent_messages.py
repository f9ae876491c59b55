"""What can be said to an agent, and what can happen to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregates.sealed import Card


@dataclass(slots=True)
class RegisterAgent:
    """Make an agent known, or change what is known of it; `card` is its A2A agent card.

    `cost` is what one task costs with it, in whatever unit all agents use; `region` where it runs.
    """

    name: str
    roles: list[str]
    capabilities: list[str] = field(default_factory=list)
    capacity: int = 1
    card: Card = None
    cost: float = 0.0
    region: str | None = None


@dataclass(slots=True)
class DrainAgent:
    """Give it nothing new; what it has may finish."""

    reason: str = ""


@dataclass(slots=True)
class DeregisterAgent:
    """Forget the agent."""

    reason: str = ""


@dataclass(slots=True)
class OpenCircuit:
    """Give it nothing: it fails. `cooldown_seconds` is for the first time; it doubles then."""

    reason: str
    failures: int
    cooldown_seconds: float


@dataclass(slots=True)
class HalfOpenCircuit:
    """Its cool-down is over: give it one task at a time, and see."""


@dataclass(slots=True)
class CloseCircuit:
    """It works again."""

    reason: str = ""


@dataclass(slots=True)
class MarkAgentLost:
    """Nothing is heard of it any more."""

    reason: str


@dataclass(slots=True)
class MarkAgentReturned:
    """It is heard of again."""


# Events: names and fields are what is stored; change them only with an upcaster ------------------


@dataclass(slots=True)
class AgentRegistered:
    name: str
    roles: list[str]
    capabilities: list[str]
    capacity: int
    card: Card = None
    cost: float = 0.0
    region: str | None = None


@dataclass(slots=True)
class AgentDrained:
    reason: str


@dataclass(slots=True)
class AgentDeregistered:
    reason: str


@dataclass(slots=True)
class CircuitOpened:
    """`cooldown_seconds` from now it gets a probe; `openings` counts since it worked last."""

    reason: str
    failures: int
    cooldown_seconds: float
    openings: int


@dataclass(slots=True)
class CircuitHalfOpened:
    pass


@dataclass(slots=True)
class CircuitClosed:
    reason: str


@dataclass(slots=True)
class AgentLost:
    reason: str


@dataclass(slots=True)
class AgentReturned:
    pass


COMMANDS = (
    RegisterAgent,
    DrainAgent,
    DeregisterAgent,
    OpenCircuit,
    HalfOpenCircuit,
    CloseCircuit,
    MarkAgentLost,
    MarkAgentReturned,
)

EVENTS = (
    AgentRegistered,
    AgentDrained,
    AgentDeregistered,
    CircuitOpened,
    CircuitHalfOpened,
    CircuitClosed,
    AgentLost,
    AgentReturned,
)
