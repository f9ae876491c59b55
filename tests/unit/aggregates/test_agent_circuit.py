"""An agent's circuit and whether it is lost: reports of many partitions, one story."""

from __future__ import annotations

import pytest

from aggregates.agent import COOLDOWN_S_MAX
from aggregates.agent_messages import (
    AgentLost,
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
from tests.spec import after, given

ANN = RegisterAgent("ann", ["writer"])
FAILS = OpenCircuit("5 failures in a row", 5, 10.0)


def test_a_circuit_opens_is_tried_and_closes():
    """R30."""
    open_ = after(ANN).when(FAILS).then(CircuitOpened("5 failures in a row", 5, 10.0, 1))
    trial = open_.when(HalfOpenCircuit()).then(CircuitHalfOpened())
    closed = trial.when(CloseCircuit("it works")).then(CircuitClosed("it works"))
    assert closed.state.circuit == "closed"


def test_what_several_partitions_report_happens_once():
    """R30, I4."""
    open_ = after(ANN, FAILS)
    open_.when(OpenCircuit("others saw 7", 7, 99.0)).then_nothing()
    trial = after(ANN, FAILS, HalfOpenCircuit())
    trial.when(HalfOpenCircuit()).then_nothing()
    closed = after(ANN, FAILS, HalfOpenCircuit(), CloseCircuit())
    closed.when(CloseCircuit()).then_nothing()
    closed.when(HalfOpenCircuit()).then_nothing()


def test_every_probe_that_fails_doubles_the_cool_down_up_to_a_bound():
    """R30: and an agent that has worked meanwhile begins anew."""
    so_far, expected = after(ANN), 10.0
    for opening in range(1, 12):
        so_far = so_far.when(FAILS).then(CircuitOpened(FAILS.reason, 5, expected, opening))
        so_far = so_far.when(HalfOpenCircuit()).then(CircuitHalfOpened())
        expected = min(2 * expected, COOLDOWN_S_MAX)
    assert expected == COOLDOWN_S_MAX
    closed = so_far.when(CloseCircuit()).so()
    closed.when(FAILS).then(CircuitOpened(FAILS.reason, 5, 10.0, 1))


def test_an_open_circuit_is_not_closed_without_a_trial():
    after(ANN, FAILS).when(CloseCircuit("a late success")).refused("CIRCUIT_OPEN")


@pytest.mark.parametrize("seconds", [0.0, -1.0, 2 * COOLDOWN_S_MAX, float("nan")])
def test_a_cool_down_is_bounded(seconds):
    refused = after(ANN).when(OpenCircuit("why", 1, seconds))
    refused.refused("INVALID_VALUE", "/cooldown_seconds")


def test_only_who_has_failed_is_kept_from_work():
    after(ANN).when(OpenCircuit("why", 0, 1.0)).refused("INVALID_VALUE", "/failures")


def test_an_agent_is_lost_once_and_returns_once():
    """R30."""
    lost = after(ANN).when(MarkAgentLost("no sign of life")).then(AgentLost("no sign of life"))
    lost.when(MarkAgentLost("again")).then_nothing()
    back = lost.when(MarkAgentReturned()).then(AgentReturned())
    back.when(MarkAgentReturned()).then_nothing()
    after(ANN).when(MarkAgentReturned()).then_nothing()


def test_a_reason_is_bounded():
    [event] = after(ANN).when(MarkAgentLost("x" * 10_000)).events
    assert len(event.reason) == 500


@pytest.mark.parametrize("command", [FAILS, HalfOpenCircuit(), CloseCircuit(), MarkAgentLost("")])
def test_nothing_is_said_of_who_was_never_registered(command):
    given().when(command).refused("UNKNOWN_AGENT")


def test_who_is_forgotten_comes_back_without_a_past():
    gone = after(ANN, FAILS, MarkAgentLost("why"), DeregisterAgent())
    for command in (FAILS, HalfOpenCircuit(), CloseCircuit(), MarkAgentLost(""), DrainAgent()):
        gone.when(command).then_nothing()
    back = gone.when(ANN).so()
    assert (back.state.circuit, back.state.openings, back.state.lost) == ("closed", 0, False)


def test_registering_again_does_not_prove_that_it_works():
    changed = after(ANN, FAILS, MarkAgentLost("why")).when(RegisterAgent("ann", ["editor"])).so()
    assert (changed.state.circuit, changed.state.lost) == ("open", True)
