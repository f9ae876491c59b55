"""The facts about one execution: from the log, the cursors, the agents and, if it is there, Redis.

Who lives is told by beats that change, never by a clock of another machine: what beats is looked at
twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from aggregates.execution_state import TASK_STATUSES, Execution
from aggregates.plan import Plan
from processors.allocation.candidate import obstacle, why_waiting
from processors.allocation.directory import Directory
from processors.allocation.need import PULL, Need, needs
from processors.allocation.states import ReadModel
from processors.explain.facts import Facts, OpenTask, Reader, Service, Undoing
from processors.history import folded
from processors.payloads import withhold
from processors.reading import ERROR, PROMPT
from processors.reading import Reader as PayloadReader
from streams.bus import Bus, BusUnavailable
from streams.log import WRITER
from streams.logs.postgres import PostgresLog
from streams.message import Event

LOOK_S = 2.0
"""Between two looks at what beats: longer than a beat of the default lease (5 s / 3)."""

ERROR_CHARS_MAX = 200

CONSUMERS = (WRITER, "managers", "projections")
ENDS = frozenset({"ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"})
TURNS = ENDS | {"ExecutionPaused", "ExecutionResumed", "ExecutionRetried"}

CURSORS = """
SELECT consumer, owner, epoch, beat, position FROM cursors
WHERE partition = $1 AND consumer = ANY($2::text[])
"""
REGISTERED = """
SELECT role, count(*) FROM agents, unnest(roles) AS role
WHERE tenant = $1 AND role = ANY($2::text[]) AND status <> 'deregistered' GROUP BY role
"""
PARKED = "SELECT consumer FROM parked_keys WHERE subject = $1 ORDER BY consumer"


class Unheard(LookupError):
    """There are no events of the execution."""


class Trail:
    """What an execution's events say beside its state: since when things are as they are."""

    def __init__(self) -> None:
        self.last: Event | None = None
        self.turn: Event | None = None
        self.tasks: dict[str, Event] = {}
        self.errors: dict[str, str] = {}
        self.undoing: Undoing | None = None

    def see(self, event: Event) -> None:
        """One event further."""
        self.last = event
        if event.type in TURNS:
            self.turn = event
        if self.undoing is not None or event.type == "CompensationStarted":
            self._undo(event)
        elif (task := event.data.get("task")) is not None and event.type.startswith(
            ("Task", "Input")
        ):
            self.tasks[task] = event
            if error := event.data.get("error") or event.data.get("reason"):
                self.errors[task] = error

    def _undo(self, event: Event) -> None:
        if event.type == "CompensationStarted":
            self.undoing = Undoing(list(event.data["tasks"]))
            return
        undoing, task = self.undoing, event.data.get("task")
        if undoing is None or task is None:
            return
        match event.type:
            case "CompensationScheduled":
                undoing.under_way = task
            case "TaskCompensated" | "CompensationParked":
                undoing.under_way = None
                for names in (undoing.left, undoing.parked):
                    if task in names:
                        names.remove(task)
                done = event.type == "TaskCompensated"
                (undoing.compensated if done else undoing.parked).append(task)


async def gather(
    log: PostgresLog,
    bus: Bus,
    execution: str,
    now: datetime,
    look_s: float = LOOK_S,
    engine: PostgresLog | None = None,
) -> Facts:
    """Everything that the findings need; raises Unheard.

    `engine` reads what is no tenant's, where `log` is bound to one.
    """
    trail, state, tenant = Trail(), Execution(execution), ""
    async for event, after in folded(log, execution):
        trail.see(event)
        state, tenant = after, event.tenant
    if trail.last is None or state.plan is None:
        raise Unheard(f"There are no events of the execution {execution}.")
    facts = _facts(state, trail, trail.last, now)
    before = await _cursors(log, facts.partition)
    directory = Directory(bus, ReadModel(log), asyncio.get_running_loop().time)
    try:
        await directory.refresh()
        await asyncio.sleep(look_s)
        await directory.refresh()
    except BusUnavailable as error:
        facts.redis_error = " ".join(str(error).split())[:ERROR_CHARS_MAX]
        await asyncio.sleep(look_s)
    wanted = {task.role for task in facts.open if task.status == "scheduled"}
    facts.roles = await _services(log, directory, state.plan, tenant, sorted(wanted))
    if facts.redis_error is not None:
        for service in facts.roles.values():
            service.able = None
    facts.readers = _readers(before, await _cursors(log, facts.partition))
    parked = await (engine or log).pool.fetch(PARKED, f"execution/{execution}")
    facts.parked_for = [row[0] for row in parked]
    return facts


async def opened(facts: Facts, see: PayloadReader) -> None:
    """Put what agents said into the facts in clear, for whoever may read it."""
    said = [(ERROR, facts.reason)]
    for task in facts.open:
        said += [(ERROR, task.error), (PROMPT, task.prompt)]
    facts.reason, *rest = await see.of_execution(facts.execution_id, said)
    for task, error, prompt in zip(facts.open, rest[::2], rest[1::2], strict=True):
        task.error, task.prompt = error, prompt


def withheld(facts: Facts) -> None:
    """Leave out what agents said in clear, for who may not read it."""
    facts.reason = withhold(ERROR, facts.reason)
    for task in facts.open:
        task.error, task.prompt = withhold(ERROR, task.error), withhold(PROMPT, task.prompt)


def _facts(state: Execution, trail: Trail, last: Event, now: datetime) -> Facts:
    plan, turn = state.plan, trail.turn
    assert plan is not None
    counts = Counter(TASK_STATUSES[status] for status in state.task_status)
    reason = turn.data.get("reason") if turn else None
    return Facts(
        state.id,
        state.status,
        now,
        last.partition,
        last.type,
        _time(last),
        len(plan.ids),
        counts["completed"],
        reason=reason,
        actor=turn.actor if turn and turn.type not in ENDS else None,
        since=_time(turn) if turn else None,
        open=[] if state.terminal else _open(state, trail),
        undoing=trail.undoing,
    )


def _open(state: Execution, trail: Trail) -> list[OpenTask]:
    """Tasks that were begun and have not ended, and those that only wait for a signal."""
    plan = state.plan
    assert plan is not None
    found = []
    for place, task_id in enumerate(plan.ids):
        status, definition = TASK_STATUSES[state.task_status[place]], plan.definition.tasks[place]
        if status not in ("pending", "scheduled", "running", "waiting"):
            continue
        event = trail.tasks.get(task_id)
        wait_for = _signal(state, place) if status == "pending" else None
        if event is None and wait_for is None:
            continue
        since = _time(event) if event else _time(trail.last)  # type: ignore[arg-type]
        task = OpenTask(task_id, status, definition.agent_role, state.attempts[place], since)
        task.agent = state.agents.get(place) if status == "running" else None
        task.timeout_s = definition.timeout_seconds
        task.wait_for = wait_for
        task.error = trail.errors.get(task_id)
        if event is not None and event.type == "TaskScheduled" and event.data["delay_ms"]:
            task.not_before = since + timedelta(milliseconds=event.data["delay_ms"])
        if event is not None and event.type == "InputRequested":
            task.prompt = event.data["prompt"]
        found.append(task)
    return found


def _signal(state: Execution, task: int) -> str | None:
    """The signal that a pending task waits for, if that has not come."""
    assert state.plan is not None
    for name, tasks in state.plan.signals.items():
        if task in tasks and name not in state.signals:
            return name
    return None


# Who could move it --------------------------------------------------------------------------------


async def _cursors(log: PostgresLog, partition: int) -> dict[str, Any]:
    rows = await log.pool.fetch(CURSORS, partition, list(CONSUMERS))
    return {row["consumer"]: row for row in rows}


def _readers(before: dict[str, Any], after: dict[str, Any]) -> list[Reader]:
    head = after[WRITER]["position"] if WRITER in after else 0
    readers = []
    for consumer in CONSUMERS:
        row, old = after.get(consumer), before.get(consumer)
        if row is None:
            readers.append(Reader(consumer, None, False, head))
            continue
        beats = old is None or (old["epoch"], old["beat"]) != (row["epoch"], row["beat"])
        readers.append(Reader(consumer, row["owner"], beats, head - row["position"]))
    return readers


async def _services(
    log: PostgresLog, directory: Directory, plan: Plan, tenant: str, roles: list[str]
) -> dict[str, Service]:
    rows = await log.pool.fetch(REGISTERED, tenant, roles)
    registered: dict[str, int] = {row[0]: row[1] for row in rows}
    wanted, services = needs(plan.definition), {}
    for role in roles:
        need = wanted.get(role, Need(PULL))
        candidates = directory.serving(tenant, role)
        obstacles = [obstacle(one, need) for one in candidates]
        services[role] = Service(
            registered.get(role, 0),
            obstacles.count(None),
            "full" in obstacles and None not in obstacles,
            why_waiting(role, candidates, need),
        )
    return services


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event.time).astimezone(UTC)
