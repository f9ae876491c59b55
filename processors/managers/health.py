"""Health: what agents' attempts come to is counted; an agent that fails gets no work for a while.

Each partition counts for itself what happened in its own executions; only what crosses a threshold
becomes a command, and the agent's aggregate is where the partitions' reports meet: the first one
opens the circuit. The timer of the cool-down runs where the agent's own events are, in its home
partition. What a half-open agent's probe came to may be told by any partition, none of which knows
that it was a probe: so each tells, now and then, how the agent fared, under the condition that
the circuit is half-open (`OnTrial`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from aggregates.decider import Blueprint, Reference
from aggregates.problem import bounded
from aggregates.schedule import may_retry
from processors.managers.manager import Effect, Manager, OnTrial, Send
from streams.message import Command, Event

IN_A_ROW = 8  # by chance, an agent that fails a fifth of its tasks does so once in 400,000
WINDOW = 20  # its newest outcomes
IN_WINDOW = 12  # so many failures among them are too many, in a row or not
COOLDOWN_S = 5.0  # for the first time; the aggregate doubles it for every probe that fails
QUIET_S = COOLDOWN_S  # after a report nothing is counted: what fails now was given before
QUIET_S_MAX = 600.0  # who was never registered is reported in vain, and less and less often
LOSS_S = 10.0  # attempts that are lost within so long were lost together
VERDICT_S = 1.0  # between two verdicts on one agent
RESEND_S = 5.0  # a command whose event does not come is sent again
AGENTS_MAX = 10_000  # of each partition; those that were quiet longest are forgotten
RUNS_MAX = 10_000
ERROR_CHARS_MAX = 200
POISON = "POISON:"

_MASK = (1 << WINDOW) - 1
_ENDS = frozenset({"ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"})
_FAILURES = frozenset({"TaskFailed", "TaskTimedOut", "CompensationFailed"})
_SUCCESSES = frozenset({"TaskCompleted", "TaskCompensated"})
_OVER = frozenset({"CircuitHalfOpened", "CircuitClosed", "AgentDeregistered"})


@dataclass(slots=True)
class Record:
    """What one agent's newest attempts came to here; `outcomes` are bits, 1 for a failure."""

    row: int = 0
    outcomes: int = 0
    count: int = 0
    told: int = 0
    quiet_until: float = 0.0
    verdict_at: float = 0.0
    lost_until: float = 0.0


@dataclass(slots=True)
class Cooling:
    """An agent whose circuit is open: who half-opens it under which id, and when."""

    tenant: str
    command_id: str
    due_at: float


@dataclass(slots=True)
class Health:
    """The agents' records in one partition, and the open circuits of those who are at home here."""

    agents: OrderedDict[str, Record] = field(default_factory=OrderedDict)
    runs: OrderedDict[str, Blueprint] = field(default_factory=OrderedDict)
    cooling: OrderedDict[str, Cooling] = field(default_factory=OrderedDict)


def react(state: Health, event: Event, found: Blueprint | None, now: float) -> list[Effect]:
    """What a fact makes necessary."""
    kind = event.type
    if kind in _SUCCESSES:
        return _succeeded(state, event, now)
    if kind in _FAILURES:
        agent = event.data["agent"]
        if agent is None or not _blamed(state, event):
            return []
        return _failed(state, event, agent, now)
    if kind in _ENDS:
        state.runs.pop(event.root, None)
    elif kind == "TaskTakenOver":
        lost_by = event.data.get("previous")
        return _lost(state, event, lost_by, now) if lost_by else []
    elif kind == "CircuitOpened":
        due_at = now + event.data["cooldown_seconds"]
        one = Cooling(event.tenant, _command_id(event), due_at)
        _keep(state.cooling, event.root, one, AGENTS_MAX)
    elif kind in _OVER:
        state.cooling.pop(event.root, None)
    elif found is not None:  # an execution has started, or is tried again
        _keep(state.runs, event.root, found, RUNS_MAX)
    return []


def _succeeded(state: Health, event: Event, now: float) -> list[Effect]:
    agent = event.data["agent"]
    record = _record(state, agent)
    if record.outcomes or record.count < WINDOW:  # else all is well, as almost always
        record.row = 0
        record.outcomes = record.outcomes << 1 & _MASK
        record.count += record.count < WINDOW
        if record.count == WINDOW:
            record.told = 0
    if now < record.verdict_at:
        return []
    record.verdict_at = now + VERDICT_S
    said = {"reason": f"It has done a task of {event.root}."}
    return [OnTrial(_command(event, agent, "CloseCircuit", said))]


def _failed(state: Health, event: Event, agent: str, now: float) -> list[Effect]:
    record = _record(state, agent)
    said = event.data.get("error") or event.data.get("reason") or "it was heard of no more"
    why = bounded(said, ERROR_CHARS_MAX)
    if now >= record.quiet_until:
        record.row += 1
        record.outcomes = (record.outcomes << 1 | 1) & _MASK
        record.count += record.count < WINDOW
        failures = record.outcomes.bit_count()
        if record.row >= IN_A_ROW or failures >= IN_WINDOW:
            how = "in a row" if record.row >= IN_A_ROW else f"of {record.count} tasks"
            reason = f"{failures} failures {how}, the last one: {why}"
            record.quiet_until = now + min(QUIET_S * 2.0**record.told, QUIET_S_MAX)
            record.told += 1
            record.row = record.outcomes = record.count = 0
            return [Send(_open(event, agent, reason, failures))]
    if now < record.verdict_at:
        return []
    record.verdict_at = now + VERDICT_S
    return [OnTrial(_open(event, agent, f"It failed on trial: {why}", 1))]


def _lost(state: Health, event: Event, agent: str, now: float) -> list[Effect]:
    """An attempt came to somebody else: what dies loses all its tasks at once, and died once."""
    record = _record(state, agent)
    if now < record.lost_until:
        return []
    record.lost_until = now + LOSS_S
    return _failed(state, event, agent, now)


def _blamed(state: Health, event: Event) -> bool:
    """Whether a failure counts against the agent, and not against the task."""
    said = event.data
    if event.type == "TaskTimedOut":
        return bool(said["kind"] == "run")
    error = said["error"]
    if error.startswith(POISON):
        return False
    run = state.runs.get(event.root)
    if run is None:
        return True
    task = run.plan.definition.tasks[run.plan.index[said["task"]]]
    return may_retry(task.retry_policy, 0, error)  # only an error that the policy names forbids it


def _record(state: Health, agent: str) -> Record:
    record = state.agents.get(agent)
    if record is None:
        record = Record()
        _keep(state.agents, agent, record, AGENTS_MAX)
    else:
        state.agents.move_to_end(agent)
    return record


def _keep(kept: OrderedDict[str, Any], name: str, value: Any, most: int) -> None:
    kept[name] = value
    if len(kept) > most:
        kept.popitem(last=False)


def _open(event: Event, agent: str, reason: str, failures: int) -> Command:
    said = {"reason": reason, "failures": failures, "cooldown_seconds": COOLDOWN_S}
    return _command(event, agent, "OpenCircuit", said)


def _command(event: Event, agent: str, kind: str, said: dict[str, Any]) -> Command:
    return Command(
        _command_id(event),
        kind,
        "agent",
        agent,
        said,
        event.tenant,
        "health",
        event.correlation,
        f"{event.partition}-{event.position}",
    )


def _command_id(event: Event) -> str:
    return f"health:{event.partition}:{event.position}"


def due(state: Health, now: float) -> list[Effect]:
    """Circuits whose cool-down is over, until it is heard that they are half-open."""
    effects: list[Effect] = []
    for agent, one in state.cooling.items():
        if one.due_at <= now:
            one.due_at = now + RESEND_S
            command = Command(
                one.command_id, "HalfOpenCircuit", "agent", agent, {}, one.tenant, "health"
            )
            effects.append(Send(command))
    return effects


def waiting(state: Health) -> bool:
    """Whether a circuit is open."""
    return bool(state.cooling)


def dump(state: Health, now: float) -> Any:
    """The state as JSON-able data; times are the seconds that remain."""
    return {
        "agents": [
            (name, r.row, r.outcomes, r.count, r.told, max(0.0, r.quiet_until - now))
            for name, r in state.agents.items()
            if r.outcomes or r.told
        ],
        "runs": [(root, run.workflow_id, run.revision) for root, run in state.runs.items()],
        "cooling": [
            (agent, one.tenant, one.command_id, max(0.0, one.due_at - now))
            for agent, one in state.cooling.items()
        ],
    }


def references(data: Any) -> set[Reference]:
    """The revisions that the dumped runs need."""
    return {Reference(workflow, revision) for _, workflow, revision in data["runs"]}


def load(data: Any, found: dict[Reference, Blueprint], now: float) -> Health:
    """The state that `dump` described."""
    state = Health()
    for name, row, outcomes, count, told, quiet_s in data["agents"]:
        state.agents[name] = Record(row, outcomes, count, told, now + quiet_s)
    for root, workflow, revision in data["runs"]:
        state.runs[root] = found[Reference(workflow, revision)]
    for agent, tenant, command_id, left_s in data["cooling"]:
        state.cooling[agent] = Cooling(tenant, command_id, now + left_s)
    return state


HEALTH = Manager(
    name="health",
    events=_SUCCESSES
    | _FAILURES
    | _ENDS
    | _OVER
    | {"TaskTakenOver", "CircuitOpened", "ExecutionStarted", "ExecutionRetried"},
    initial=Health,
    react=react,
    due=due,
    waiting=waiting,
    dump=dump,
    references=references,
    load=load,
)
