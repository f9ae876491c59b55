"""Health under any sequence of outcomes, time and restarts: bounded reports, one state."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.agent import AGENT, Agent
from aggregates.decider import fold
from aggregates.execution_events import TaskCompleted, TaskFailed, TaskTimedOut
from aggregates.problem import Refused
from processors.managers.health import HEALTH, IN_A_ROW, IN_WINDOW
from processors.managers.manager import OnTrial, Send
from processors.vocabulary import Vocabulary
from streams.message import Command
from tests.spec import NOW, facts, reacting
from tests.unit.managers.test_health import told

NAMES = Vocabulary()
OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["done", "fail", "fail", "timeout", "restart", "probe"]),
        st.sampled_from([0.0, 0.1, 1.0, 7.0]),
    ),
    max_size=120,
)


def happened(agent: str, kind: str) -> Any:
    if kind == "done":
        return TaskCompleted("a", 1, agent)
    if kind == "timeout":
        return TaskTimedOut("a", 1, agent, "run", "too long", True)
    return TaskFailed("a", 1, agent, "no", True)


@settings(max_examples=150, deadline=None)
@given(OUTCOMES)
def test_reports_are_few_and_the_agents_follow(steps: list[tuple[str, str, float]]) -> None:
    """R30, I4, I13: every report has its failures; what follows is never refused for its form."""
    one, now, place = reacting(HEALTH).given(), 0.0, 0
    one.at(now).then_nothing()
    agents = {name: Agent(name) for name in ("ann", "bob")}
    failures = dict.fromkeys(agents, 0)
    for name, state in agents.items():
        _decide(state, "RegisterAgent", {"name": name, "roles": ["r"]})
    for agent, kind, wait in steps:
        now += wait
        if kind == "restart":
            one = one.restored(now)
            continue
        [event] = told([happened(agent, kind)], "e", place)
        place += 1
        failures[agent] += kind in ("fail", "timeout", "probe")
        for effect in [*one.when(event, at=now).effects, *one.at(now).effects]:
            assert isinstance(effect, Send | OnTrial)
            command = effect.command
            state = agents[command.root]
            if isinstance(effect, OnTrial):
                assert command.id == f"health:0:{place}"
                if state.circuit != "half_open":
                    continue
            elif command.type == "OpenCircuit":
                assert failures[agent] >= min(IN_A_ROW, IN_WINDOW)
                failures[agent] = 0
            for followed in _decide(state, command.type, command.data):
                place += 1
                one.when(*facts([followed], command.root, after=place), at=now).then_nothing()
    assert {name for name, state in agents.items() if state.circuit == "open"} == set(
        one.state.cooling
    )
    data = HEALTH.dump(one.state, now)
    assert orjson.loads(orjson.dumps(HEALTH.dump(one.restored(now).state, now))) == orjson.loads(
        orjson.dumps(data)
    )


def _decide(state: Agent, kind: str, data: dict[str, Any]) -> list[Any]:
    command = NAMES.command(Command("c", kind, "agent", state.id, data))
    try:
        events = AGENT.decide(state, command, NOW)
    except Refused as refusal:
        raise AssertionError(refusal) from refusal
    fold(AGENT, state.id, events, state)
    return events
