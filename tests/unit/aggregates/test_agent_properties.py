"""An agent under any sequence of commands: a repeat changes nothing, the fold is the state."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aggregates.agent import AGENT, COOLDOWN_S_MAX, Agent
from aggregates.agent_messages import (
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
from aggregates.decider import fold
from aggregates.problem import Refused
from tests.spec import NOW, ROOT

ANN = RegisterAgent("ann", ["writer"], ["english"], 2, {"url": "redis"}, 1.5, "eu")
COMMANDS = st.one_of(
    st.sampled_from([ANN, RegisterAgent("ann", ["editor"], capacity=4), RegisterAgent("ann", [])]),
    st.builds(DrainAgent, st.sampled_from(["", "why"])),
    st.builds(DeregisterAgent, st.sampled_from(["", "why"])),
    st.builds(OpenCircuit, st.just("why"), st.integers(0, 9), st.sampled_from([0.5, 10.0, 601.0])),
    st.sampled_from([HalfOpenCircuit(), CloseCircuit(), MarkAgentLost("why"), MarkAgentReturned()]),
)
FOLLOWS = {CircuitOpened: "closed half_open", CircuitHalfOpened: "open", CircuitClosed: "half_open"}


class Story(RuleBasedStateMachine):
    """I4, I13: whatever is said in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Agent(ROOT)
        self.stored: list[tuple[type[Any], bytes]] = []

    @rule(command=COMMANDS)
    def say(self, command: Any) -> None:
        events = _decided(self.state, command)
        if isinstance(events, dict):
            assert _decided(self.state, command) == events
            return
        for event in events:
            before = self.state.circuit
            assert type(event) not in FOLLOWS or before in FOLLOWS[type(event)]
            if isinstance(event, CircuitOpened):
                assert 0 < event.cooldown_seconds <= COOLDOWN_S_MAX
            self.state = AGENT.evolve(self.state, event)
            self.stored.append((type(event), orjson.dumps(event)))
        assert _decided(self.state, command) == []

    @invariant()
    def the_fold_is_the_state(self) -> None:
        folded = fold(AGENT, ROOT, [kind(**orjson.loads(raw)) for kind, raw in self.stored])
        restored = AGENT.load(ROOT, orjson.loads(orjson.dumps(AGENT.dump(self.state))), None)
        assert self.state == folded == restored


def _decided(state: Agent, command: Any) -> Any:
    try:
        return AGENT.decide(state, command, NOW)
    except Refused as refusal:
        return refusal.problem()


Story.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestStory = Story.TestCase
