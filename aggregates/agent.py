"""An agent: who can be asked, in which roles, how much at once; and whether it can be relied on.

Two things keep work from an agent without anybody having said so: its circuit, which opens when it
fails, and that it is lost. The partitions of the log count failures each for itself; here is where
their reports meet, so a second one of the same thing changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from aggregates.agent_messages import (
    COMMANDS,
    EVENTS,
    AgentDeregistered,
    AgentDrained,
    AgentLost,
    AgentRegistered,
    AgentReturned,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    CloseCircuit,
    DeregisterAgent,
    DrainAgent,
    HalfOpenCircuit,
    MarkAgentLost,
    MarkAgentReturned,
    OpenCircuit,
    RegisterAgent,
)
from aggregates.decider import Blueprint, Decider
from aggregates.problem import Refused, bounded

ROLES_MAX = 1_000
CAPACITY_MAX = 100_000
COST_MAX = 1e12
REGION_CHARS_MAX = 200
COOLDOWN_S_MAX = 600.0  # an agent that was repaired is found out after so long at the latest

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


@dataclass(slots=True)
class Agent:
    """What was registered last, whether the agent takes work, and whether it should get any.

    `openings` counts how often the circuit has opened since it was closed.
    """

    id: str
    status: str = "unknown"
    registered: AgentRegistered | None = None
    circuit: str = CLOSED
    openings: int = 0
    lost: bool = False


def decide(state: Agent, command: Any, now: datetime) -> list[Any]:
    """The events that follow from a command; nothing where it was said before."""
    if isinstance(command, RegisterAgent):
        return _register(state, command)
    if type(command) not in COMMANDS:
        raise Refused("UNKNOWN_COMMAND", f"An agent cannot {type(command).__name__}.")
    if state.registered is None:
        raise Refused("UNKNOWN_AGENT", f"There is no agent {state.id}; register it first.")
    if state.status == "deregistered":
        return []
    match command:
        case DrainAgent():
            return [AgentDrained(command.reason)] if state.status == "active" else []
        case DeregisterAgent():
            return [AgentDeregistered(command.reason)]
        case MarkAgentLost():
            return [] if state.lost else [AgentLost(bounded(command.reason))]
        case MarkAgentReturned():
            return [AgentReturned()] if state.lost else []
        case OpenCircuit():
            return _open(state, command)
        case HalfOpenCircuit():
            return [CircuitHalfOpened()] if state.circuit == OPEN else []
        case CloseCircuit() if state.circuit == OPEN:
            detail = f"The circuit of {state.id} is open, not on trial; half-open it first."
            raise Refused("CIRCUIT_OPEN", detail)
        case CloseCircuit() if state.circuit == HALF_OPEN:
            return [CircuitClosed(bounded(command.reason))]
    return []


def _register(state: Agent, command: RegisterAgent) -> list[Any]:
    if not 1 <= len(command.roles) <= ROLES_MAX:
        raise Refused("INVALID_VALUE", f"Give 1 to {ROLES_MAX} roles.", "/roles")
    if not 1 <= command.capacity <= CAPACITY_MAX:
        raise Refused("INVALID_VALUE", f"Give 1 to {CAPACITY_MAX} as capacity.", "/capacity")
    if not 0 <= command.cost <= COST_MAX:
        raise Refused("INVALID_VALUE", f"Give 0 to {COST_MAX:g} as cost of a task.", "/cost")
    if command.region is not None and not 1 <= len(command.region) <= REGION_CHARS_MAX:
        detail = f"Give 1 to {REGION_CHARS_MAX} characters as region, or none."
        raise Refused("INVALID_VALUE", detail, "/region")
    event = AgentRegistered(
        command.name,
        command.roles,
        command.capabilities,
        command.capacity,
        command.card,
        command.cost,
        command.region,
    )
    return [] if (state.status, state.registered) == ("active", event) else [event]


def _open(state: Agent, command: OpenCircuit) -> list[Any]:
    if not 0 < command.cooldown_seconds <= COOLDOWN_S_MAX:
        detail = f"Give a cool-down above 0 and up to {COOLDOWN_S_MAX:g} s."
        raise Refused("INVALID_VALUE", detail, "/cooldown_seconds")
    if command.failures < 1:
        raise Refused("INVALID_VALUE", "Give how often it has failed, 1 or more.", "/failures")
    if state.circuit == OPEN:
        return []
    doubled = command.cooldown_seconds * 2.0 ** min(state.openings, 64)
    cooldown = min(doubled, COOLDOWN_S_MAX)
    return [CircuitOpened(bounded(command.reason), command.failures, cooldown, state.openings + 1)]


def evolve(state: Agent, event: Any) -> Agent:
    """The state after a fact; never fails, never judges."""
    match event:
        case AgentRegistered():
            state.status, state.registered = "active", event
        case AgentDrained():
            state.status = "draining"
        case AgentDeregistered():
            return Agent(state.id, "deregistered", state.registered)
        case CircuitOpened():
            state.circuit, state.openings = OPEN, event.openings
        case CircuitHalfOpened():
            state.circuit = HALF_OPEN
        case CircuitClosed():
            state.circuit, state.openings = CLOSED, 0
        case AgentLost():
            state.lost = True
        case AgentReturned():
            state.lost = False
    return state


def dump(state: Agent) -> dict[str, Any]:
    """The state as JSON-able data."""
    return {
        "status": state.status,
        "registered": asdict(state.registered) if state.registered else None,
        "circuit": state.circuit,
        "openings": state.openings,
        "lost": state.lost,
    }


def load(root: str, data: Any, _: Blueprint | None) -> Agent:
    """The state that `dump` described, now or before there were circuits."""
    registered = data["registered"]
    return Agent(
        root,
        data["status"],
        AgentRegistered(**registered) if registered else None,
        data.get("circuit", CLOSED),
        data.get("openings", 0),
        data.get("lost", False),
    )


AGENT = Decider(
    name="agent",
    commands=COMMANDS,
    events=EVENTS,
    initial=Agent,
    decide=decide,
    evolve=evolve,
    dump=dump,
    load=load,
)
