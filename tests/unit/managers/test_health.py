"""R30: who fails too often is reported once; what was the task's fault counts for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from aggregates.agent_messages import (
    AgentDeregistered,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
)
from aggregates.execution_commands import StartExecution
from aggregates.execution_events import (
    ExecutionCompleted,
    TaskCompleted,
    TaskFailed,
    TaskTakenOver,
    TaskTimedOut,
)
from processors.managers.health import (
    AGENTS_MAX,
    COOLDOWN_S,
    HEALTH,
    IN_A_ROW,
    IN_WINDOW,
    LOSS_S,
    QUIET_S,
    QUIET_S_MAX,
    RESEND_S,
    RUNS_MAX,
    VERDICT_S,
    WINDOW,
)
from processors.managers.manager import Effect, OnTrial, Send
from streams.message import Event
from tests.flows import flow
from tests.spec import ROOT, Reacting, after, facts, reacting

FLOW = flow(a=[], policy={"max_attempts": 9, "non_retryable_errors": ["BadInput"]})
START = StartExecution("w")
START._blueprint = FLOW
STARTED = after(START).happened[0]
DONE = TaskCompleted("a", 1, "ann")
NO = TaskFailed("a", 1, "ann", "no", True)


def health(*happened: Any) -> Reacting:
    """The health manager, after an execution has started and then this has happened."""
    return reacting(HEALTH, FLOW).given(*told([STARTED, *happened]))


def see(one: Reacting, *happened: Any, at: float = 0.0, place: int = 100) -> list[Effect]:
    """What follows from these events now, without the verdicts for agents on trial."""
    effects = one.when(*told(happened, place=place), at=at).effects
    return [effect for effect in effects if not isinstance(effect, OnTrial)]


def told(happened: Sequence[Any], root: str = ROOT, place: int = 0) -> list[Event]:
    """Events as a reader of the log gets them."""
    return [
        Event(0, n, type(one).__name__, "execution", root, n, "", "default", "", None, None, data)
        for n, one in enumerate(happened, place + 1)
        for data in [{k: v for k, v in vars(one).items() if k != "_blueprint"}]
    ]


def opened(effects: list[Effect]) -> tuple[str, dict[str, Any]]:
    """Of the one report among the effects: its id, and what it says."""
    [effect] = effects
    assert isinstance(effect, Send)
    assert (effect.command.type, effect.command.subject) == ("OpenCircuit", "agent/ann")
    return effect.command.id, effect.command.data


def test_failures_in_a_row_open_the_circuit():
    """R30: once, under an id of the event that was one too many."""
    one = health()
    assert see(one, *[NO] * (IN_A_ROW - 1)) == []
    name, said = opened(see(one, NO, place=200))
    assert name == "health:0:201"
    assert said == {
        "reason": f"{IN_A_ROW} failures in a row, the last one: no",
        "failures": IN_A_ROW,
        "cooldown_seconds": COOLDOWN_S,
    }
    assert see(one, *[NO] * 100, at=QUIET_S - 0.1) == []


def test_a_success_in_between_begins_the_row_anew():
    one = health(*[NO] * (IN_A_ROW - 1), DONE)
    assert see(one, *[NO] * (IN_WINDOW - IN_A_ROW)) == []


def test_too_many_failures_among_the_newest_open_the_circuit_too():
    one, failures = health(), 0
    for n in range(WINDOW):
        effects = see(one, DONE if n % 3 == 2 else NO, place=100 + n)
        failures += n % 3 != 2
        if failures == IN_WINDOW:
            break
        assert effects == []
    assert opened(effects)[1]["failures"] == IN_WINDOW


def test_an_agent_that_fails_now_and_then_is_left_alone():
    one = health()
    for n in range(500):
        assert see(one, NO if n % 2 else DONE, place=100 + n) == []


def test_a_report_that_changes_nothing_is_repeated_less_and_less_often():
    """The command was lost, or the agent was never registered and every report is refused."""
    one, now, waits = health(), 0.0, []
    for n in range(12):
        while not see(one, NO, at=now, place=n):
            now += 1.0
        waits.append(now)
    gaps = [after - before for before, after in pairwise(waits)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == QUIET_S_MAX + IN_A_ROW - 1


def test_who_works_again_is_reported_at_once_when_it_fails_again():
    one = health(*[NO] * IN_A_ROW)
    assert see(one, *[DONE] * WINDOW, at=QUIET_S) == []
    opened(see(one, *[NO] * IN_A_ROW, at=QUIET_S))
    opened(see(one, *[NO] * IN_A_ROW, at=2 * QUIET_S))


@pytest.mark.parametrize(
    "failure",
    [
        NO,
        TaskFailed("a", 9, "ann", "no", False),
        TaskFailed("a", 1, "ann", "BadInputs are another error", False),
        TaskTimedOut("a", 1, "ann", "run", "too long", True),
    ],
)
def test_what_counts_against_the_agent(failure):
    """Also the last attempt's failure, and taking too long."""
    assert opened(see(health(), *[failure] * IN_A_ROW))


def test_dying_counts_against_the_agent_once_however_many_tasks_it_loses():
    """Of all that it had, and what Redis lost for it: the same moment is one failure."""
    lost, one = TaskTakenOver("a", 1, "bob", previous="ann"), health()
    for times in range(IN_A_ROW - 1):
        assert see(one, *[lost] * 100, at=times * LOSS_S) == []
    assert opened(see(one, lost, at=IN_A_ROW * LOSS_S))


@pytest.mark.parametrize(
    "failure",
    [
        TaskFailed("a", 1, "ann", "BadInput: no such column", False),
        TaskFailed("a", 1, "ann", "POISON: delivered 5 times", False),
        TaskTimedOut("a", 1, None, "queue", "nobody took it", False),
        TaskTimedOut("a", 1, "ann", "queue", "nobody took it", False),
        TaskTakenOver("a", 1, "ann"),
    ],
)
def test_what_does_not_count_against_the_agent(failure):
    """Errors that the policy names are the task's fault, and so is poison."""
    assert see(health(), *[failure] * 3 * IN_A_ROW) == []


def test_how_an_agent_fares_is_told_now_and_then_in_case_it_is_on_trial():
    """R30: whichever partition gets the probe, its outcome is told."""
    one = health()
    [verdict] = one.when(*told([DONE], place=7), at=0.0).effects
    assert isinstance(verdict, OnTrial)
    assert (verdict.command.type, verdict.command.id) == ("CloseCircuit", "health:0:8")
    assert one.when(*told([DONE, NO]), at=VERDICT_S - 0.1).effects == []
    [verdict] = one.when(*told([NO], place=20), at=VERDICT_S).effects
    assert isinstance(verdict, OnTrial)
    assert (verdict.command.type, verdict.command.id) == ("OpenCircuit", "health:0:21")
    assert verdict.command.data["reason"] == "It failed on trial: no"


# The agent's own events --------------------------------------------------------------------------

OPENED = facts([CircuitOpened("why", 8, 5.0, 1)], "ann", after=41)


def test_after_its_cool_down_a_circuit_is_half_opened_until_that_is_heard():
    """R30, F10."""
    one = reacting(HEALTH).when(*OPENED, at=100.0).then_nothing()
    one.at(104.9).then_nothing()
    [sent] = one.at(105.0).effects
    assert isinstance(sent, Send)
    said = sent.command
    assert (said.id, said.type, said.root) == ("health:0:42", "HalfOpenCircuit", "ann")
    one.at(105.0 + RESEND_S - 0.1).then_nothing()
    one.at(105.0 + RESEND_S).then(sent)
    one.when(*facts([CircuitHalfOpened()], "ann")).then_nothing()
    one.at(1_000.0).then_nothing()


@pytest.mark.parametrize("over", [CircuitClosed(""), AgentDeregistered("")])
def test_nothing_is_half_opened_that_is_not_open_any_more(over):
    reacting(HEALTH).given(*OPENED, *facts([over], "ann")).at(1_000.0).then_nothing()


def test_a_cool_down_goes_on_after_a_restart():
    """F10: late perhaps, never early."""
    one = reacting(HEALTH).given(*OPENED, at=0.0)
    one.at(3.0).then_nothing()
    again = one.restored(50.0)
    again.at(51.9).then_nothing()
    assert len(again.at(52.0).effects) == 1


def test_counts_survive_a_restart():
    one = health(*[NO] * (IN_A_ROW - 1))
    opened(see(one.restored(), NO))
    fault = TaskFailed("a", 1, "ann", "BadInput", False)
    assert see(one.restored(), fault, DONE) == []


def test_what_is_remembered_is_bounded():
    """R33, I16."""
    one = reacting(HEALTH, FLOW)
    for n in range(AGENTS_MAX + 10):
        one.when(_event(TaskCompleted("a", 1, f"agent-{n}"), f"e{n}"))
    for n in range(RUNS_MAX + 10):
        one.when(_event(STARTED, f"e{n}"))
    assert (len(one.state.agents), len(one.state.runs)) == (AGENTS_MAX, RUNS_MAX)
    assert "agent-9" not in one.state.agents
    one.when(_event(ExecutionCompleted(1), f"e{RUNS_MAX}"))
    assert len(one.state.runs) == RUNS_MAX - 1


def _event(happened: Any, root: str) -> Event:
    [event] = told([happened], root)
    return event
