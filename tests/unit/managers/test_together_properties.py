"""All managers beside the real aggregate: whatever agents do and Redis loses, executions end.

Agents finish, fail, hang or ask; what is sent is lost, doubled or arrives; managers are restarted
from their snapshots at any moment. Time passes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.decider import fold
from aggregates.execution import EXECUTION
from aggregates.execution_commands import StartExecution
from aggregates.execution_state import Execution
from aggregates.problem import Refused
from processors.agents.wire import COMPENSATION as UNDO
from processors.agents.wire import Assignment
from processors.managers import MANAGERS
from processors.managers.manager import Ask, Effect, Recheck, Send, Withdraw
from processors.vocabulary import Vocabulary
from streams.message import Command, Event
from tests.flows import blueprint, definition
from tests.spec import NOW, ROOT, Reacting, facts, reacting, rejection

POLICY = {"max_attempts": 2, "initial_backoff_seconds": 1, "jitter": False}
UNDOABLE = {"timeout_seconds": 30, "compensation_action": "undo"}
TASKS: dict[str, Any] = {
    "a": UNDOABLE,
    "b": UNDOABLE | {"depends_on": ["a"]},
    "c": UNDOABLE | {"depends_on": ["a"], "wait_for": "go"},
    "d": {"depends_on": ["b", "c"], "timeout_seconds": 30},
}
FLOW = blueprint(definition(TASKS, policy=POLICY, queue_timeout_seconds=600.0))
STEPS_MAX = 400
STEP_S = 40.0
_NAMES = Vocabulary()

FATES = ["done", "done", "done", "fail", "fail hard", "hang", "begin and hang", "ask"]
WIRES = ["lost", "heard", "heard", "twice"]


class World:
    """One execution, its managers, its agents, and what is on its way between them."""

    def __init__(self, fates: Sequence[str], wires: Sequence[str]) -> None:
        self.fates, self.wires = iter(fates), iter(wires)
        self.state = Execution(ROOT)
        self.log: list[tuple[Event, float]] = []
        self.crew = [reacting(manager, FLOW) for manager in MANAGERS]
        self.now = 0.0
        self.commands: list[Command] = []
        self.asked: dict[str, Assignment] = {}
        self.held: dict[str, str] = {}
        self.known: set[str] = set()
        self.number = 0

    def start(self, limit: float | None) -> None:
        start = StartExecution("w", input={"n": 1}, timeout_seconds=limit)
        start._blueprint = FLOW
        self.append(EXECUTION.decide(self.state, start, NOW))

    def append(self, events: list[Any]) -> None:
        self.state = fold(EXECUTION, ROOT, events, self.state)
        self.note(facts(events, after=len(self.log)) if events else [])

    def note(self, events: list[Event]) -> None:
        for event in events:
            self.log.append((event, self.now))
            for manager in self.crew:
                self.carry_out(manager.when(event, at=self.now).effects)

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Ask(one) | Recheck(one):
                    copies = self.wire()
                    if copies:
                        self.asked[one.message_id] = one
                case Withdraw(one):
                    self.asked.pop(one.message_id, None)
                case Send(command):
                    self.commands += [command] * self.wire()

    def wire(self) -> int:
        return {"lost": 0, "heard": 1, "twice": 2}[next(self.wires, "heard")]

    def decide(self, command: Command) -> None:
        """As the processor does: once for each id; a refusal is an event."""
        if command.id in self.known:
            return
        self.known.add(command.id)
        try:
            events = EXECUTION.decide(self.state, _NAMES.command(command), NOW)
        except Refused:
            self.note([rejection(command.id, after=len(self.log))])
        else:
            self.append(events)

    def say(self, kind: str, one: Assignment, **data: Any) -> None:
        """An agent's answer, which may be lost as well: then the task is asked again."""
        self.number += 1
        said = {"task": one.task_id, "attempt": one.attempt, "agent": "ann", **data}
        command = Command(f"c{self.number}", kind, "execution", ROOT, said)
        self.commands += [command] * self.wire()

    def work(self) -> None:
        asked, self.asked = self.asked, {}
        for one in asked.values():
            undo = one.kind == UNDO
            kind = "Compensation" if undo else "Task"
            fate = self.held.setdefault(one.message_id, next(self.fates, "done"))
            match fate:
                case "done":
                    self.say(f"Complete{kind}", one, output=1)
                case "fail" | "fail hard":
                    self.say(f"Fail{kind}", one, error="no", retryable=fate == "fail")
                case "begin and hang" if not undo:
                    self.say("StartTask", one)
                case "ask" if not undo:
                    self.say("RequestInput", one, prompt="?")

    def people(self) -> None:
        """Somebody answers what was asked, and gives the signal."""
        for task in [e.data["task"] for e, _ in self.log if e.type == "InputRequested"]:
            self.decide(self.person("ProvideInput", {"task": task, "input": 1}))
        self.decide(self.person("SignalExecution", {"name": "go"}))

    def person(self, kind: str, data: dict[str, Any]) -> Command:
        self.number += 1
        return Command(f"p{self.number}", kind, "execution", ROOT, data)

    def folded(self, manager: Reacting) -> Reacting:
        """The same manager, had it never been saved."""
        afresh = reacting(manager.manager, FLOW)
        for event, at in self.log:
            afresh.given(event, at=at)
        return afresh

    def step(self, crash: bool) -> None:
        self.work()
        commands, self.commands = self.commands, []
        for command in commands:
            self.decide(command)
        if crash:
            self.crew = [manager.restored(self.now) for manager in self.crew]
            for manager, name in zip(self.crew, NAMES, strict=True):
                assert essence(name, manager) == essence(name, self.folded(manager))
        self.now += STEP_S
        for manager in self.crew:
            self.carry_out(manager.at(self.now).effects)


NAMES = [manager.name for manager in MANAGERS]


def essence(name: str, of: Reacting) -> Any:
    """A manager's state as data, without what time alone has changed in it."""
    data = orjson.loads(orjson.dumps(of.manager.dump(of.state or of.manager.initial(), of.now)))
    if name == "dispatch":
        for run in (*data["runs"].values(), *data["ended"].values()):
            run["open"] = {task: said[:2] for task, said in run["open"].items()}
    elif name == "health":
        data = None  # it forgets in a snapshot who has never failed
    elif name == "deadlines":
        data = {
            root: {task: more for task, (_, *more) in run["open"].items()}
            for root, run in data["runs"].items()
        }
    return data


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(FATES), max_size=25),
    st.lists(st.sampled_from(WIRES), max_size=60),
    st.sets(st.integers(0, 40)),
    st.sampled_from([None, 300.0, 3_000.0]),
    st.integers(0, 10),
)
def test_an_execution_ends_whatever_happens(
    fates: list[str], wires: list[str], crashes: set[int], limit: float | None, answered: int
) -> None:
    """I8, I9, I15, I16, R14, R31: and nothing of it is left in any manager."""
    world = World(fates, wires)
    world.start(limit)
    for number in range(STEPS_MAX):
        if world.state.terminal:
            break
        world.step(number in crashes)
        if number >= answered:
            world.people()
    kinds = [event.type for event, _ in world.log]
    assert world.state.terminal, kinds
    assert sum(kinds.count(k) for k in kinds if k.startswith("Execution") and k[9:] in ENDS) == 1
    in_order(world)
    for manager, of in zip(MANAGERS, world.crew, strict=True):
        left = orjson.loads(orjson.dumps(manager.dump(of.state, world.now)))
        assert not any(left.get(name) for name in ("runs", "undoing", "outstanding")), left


ENDS = ("Completed", "Failed", "Cancelled")


def in_order(world: World) -> None:
    """I9: undone in the reverse order of completion, and only what was completed."""
    said = [(event.type, event.data) for event, _ in world.log]
    done = [data["task"] for kind, data in said if kind == "TaskCompleted"]
    undoable = [task for task in done if task != "d"][::-1]
    begun = [d["task"] for kind, d in said if kind == "CompensationScheduled" and d["attempt"] == 1]
    if "CompensationStarted" in [kind for kind, _ in said]:
        assert begun == undoable
        [end] = [d for kind, d in said if kind in ("ExecutionFailed", "ExecutionCancelled")]
        assert sorted(end["compensated"] + end["not_compensated"]) == sorted(undoable)
