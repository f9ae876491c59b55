"""An agent: registered, drained, deregistered; what was said before changes nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given as whatever
from hypothesis import settings
from hypothesis import strategies as st

from aggregates.agent import (
    AGENT,
    CAPACITY_MAX,
    ROLES_MAX,
    Agent,
    AgentDeregistered,
    AgentDrained,
    AgentRegistered,
    DeregisterAgent,
    DrainAgent,
    RegisterAgent,
)
from aggregates.decider import fold
from aggregates.problem import Refused
from tests.spec import NOW, ROOT, after, given

ANN = RegisterAgent("ann", ["writer"], ["english"], 2, {"url": "redis"})
BUSIER = RegisterAgent("ann", ["writer", "editor"], ["english"], 4)


def test_an_agent_is_registered_with_all_that_is_known_of_it():
    """R53."""
    given().when(ANN).then(AgentRegistered("ann", ["writer"], ["english"], 2, {"url": "redis"}))


def test_registering_again_changes_what_differs():
    after(ANN).when(ANN).then_nothing()
    after(ANN).when(BUSIER).then(AgentRegistered("ann", ["writer", "editor"], ["english"], 4))


def test_an_agent_is_drained_and_comes_back():
    drained = after(ANN).when(DrainAgent("update")).then(AgentDrained("update"))
    drained.when(DrainAgent("again")).then_nothing()
    drained.when(ANN).then_kinds(AgentRegistered)


def test_an_agent_is_forgotten_and_comes_back():
    gone = after(ANN, DrainAgent()).when(DeregisterAgent("bye")).then(AgentDeregistered("bye"))
    gone.when(DeregisterAgent("again")).then_nothing()
    gone.when(DrainAgent()).then_nothing()
    assert gone.state.status == "deregistered"
    gone.when(ANN).then_kinds(AgentRegistered)


@pytest.mark.parametrize("command", [DrainAgent(), DeregisterAgent()])
def test_who_was_never_registered_is_unknown(command):
    given().when(command).refused("UNKNOWN_AGENT")


@pytest.mark.parametrize("roles", [[], ["r"] * (ROLES_MAX + 1)])
def test_an_agent_has_some_roles(roles):
    given().when(RegisterAgent("ann", roles)).refused("INVALID_VALUE", "/roles")


@pytest.mark.parametrize("capacity", [-1, 0, CAPACITY_MAX + 1])
def test_an_agent_has_some_capacity(capacity):
    refused = given().when(RegisterAgent("ann", ["r"], capacity=capacity))
    refused.refused("INVALID_VALUE", "/capacity")


def test_a_command_of_another_kind_is_refused():
    with pytest.raises(Refused, match="UNKNOWN_COMMAND"):
        AGENT.decide(Agent(ROOT), object(), NOW)


COMMANDS = st.one_of(
    st.sampled_from([ANN, BUSIER, RegisterAgent("ann", [])]),
    st.builds(DrainAgent, st.sampled_from(["", "why"])),
    st.builds(DeregisterAgent, st.sampled_from(["", "why"])),
)


@settings(max_examples=100, deadline=None)
@whatever(st.lists(COMMANDS, max_size=10))
def test_whatever_is_said_twice_counts_once(commands: list[Any]) -> None:
    """I4, I13: and the state is the fold of what is stored, at every point."""
    state, stored = Agent(ROOT), []
    for command in commands:
        events = decided(state, command)
        if isinstance(events, dict):
            assert decided(state, command) == events
            continue
        stored += [(type(event), orjson.dumps(event)) for event in events]
        state = fold(AGENT, ROOT, events, state)
        assert decided(state, command) == []
        folded = fold(AGENT, ROOT, [kind(**orjson.loads(raw)) for kind, raw in stored])
        restored = AGENT.load(ROOT, orjson.loads(orjson.dumps(AGENT.dump(state))), None)
        assert state == folded == restored


def decided(state: Agent, command: Any) -> Any:
    try:
        return AGENT.decide(state, command, NOW)
    except Refused as refusal:
        return refusal.problem()
