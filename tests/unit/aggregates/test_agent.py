"""An agent: registered, drained, deregistered; what was said before changes nothing."""

from __future__ import annotations

import pytest

from aggregates.agent import AGENT, CAPACITY_MAX, COST_MAX, REGION_CHARS_MAX, ROLES_MAX, Agent
from aggregates.agent_messages import (
    AgentDeregistered,
    AgentDrained,
    AgentRegistered,
    DeregisterAgent,
    DrainAgent,
    RegisterAgent,
)
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


@pytest.mark.parametrize("cost", [-0.1, 2 * COST_MAX, float("nan")])
def test_a_task_costs_something_or_nothing(cost):
    """R12."""
    refused = given().when(RegisterAgent("ann", ["r"], cost=cost))
    refused.refused("INVALID_VALUE", "/cost")


@pytest.mark.parametrize("region", ["", "x" * (REGION_CHARS_MAX + 1)])
def test_a_region_has_a_name(region):
    refused = given().when(RegisterAgent("ann", ["r"], region=region))
    refused.refused("INVALID_VALUE", "/region")


def test_cost_and_region_are_kept():
    """R12."""
    made = given().when(RegisterAgent("ann", ["r"], cost=2.5, region="eu"))
    made.then(AgentRegistered("ann", ["r"], [], 1, None, 2.5, "eu"))


def test_a_state_from_before_there_were_circuits_is_loaded():
    old = {
        "status": "active",
        "registered": {
            "name": "ann",
            "roles": ["r"],
            "capabilities": [],
            "capacity": 1,
            "card": None,
        },
    }
    loaded = AGENT.load(ROOT, old, None)
    assert loaded == after(RegisterAgent("ann", ["r"])).state
    assert (loaded.circuit, loaded.lost) == ("closed", False)


def test_a_command_of_another_kind_is_refused():
    with pytest.raises(Refused, match="UNKNOWN_COMMAND"):
        AGENT.decide(Agent(ROOT), object(), NOW)
