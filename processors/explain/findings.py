"""From facts to sentences: what keeps an execution from moving, and what would help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from processors.explain.facts import Facts, OpenTask, Service

NAMED_MAX = 5  # of each kind; one screen is promised
PROMPT_CHARS_MAX = 200
LAG_EVENTS = 1_000  # a reader so far behind is worth a word

ENGINE = {
    "commands": "decides its commands",
    "managers": "gives out its tasks",
    "projections": "builds its read models",
}


class Finding(NamedTuple):
    """One sentence, and the command that helps where there is one.

    `blocks` is whether the execution cannot go on before this has changed.
    """

    text: str
    cure: str | None = None
    blocks: bool = True


def findings(facts: Facts) -> list[Finding]:
    """What is to be said, the most important first; never empty."""
    said = [*_status(facts), *_engine(facts)]
    if facts.status in ("executing", "paused"):
        said += [*_inputs(facts), *_undoing(facts), *_queues(facts), *_signals(facts)]
        said += _running(facts)
    if not said:
        said.append(_nothing(facts))
    return sorted(said, key=lambda finding: not finding.blocks)


def _status(facts: Facts) -> Iterator[Finding]:
    by = f" by {facts.actor}" if facts.actor else ""
    ago = f" {_ago(facts, facts.since)}" if facts.since else ""
    why = f": {facts.reason}" if facts.reason else "."
    name = facts.execution_id
    if facts.status == "paused":
        yield Finding(f"It was paused{by}{ago}{why}", f"orchestrator resume {name}")
    elif facts.status != "executing":
        cure = f"orchestrator retry {name}" if facts.status == "failed" else None
        if facts.undoing is not None and facts.undoing.compensated:
            cure = None  # what was undone cannot be gone on with
        yield Finding(f"It has {facts.status}{ago}{why}", cure, blocks=False)
        yield from _undoing(facts)


def _engine(facts: Facts) -> Iterator[Finding]:
    ended = facts.status not in ("executing", "paused")
    for reader in facts.readers:
        does = ENGINE.get(reader.consumer, f"reads as {reader.consumer}")
        blocks = not ended and reader.consumer != "projections"
        if reader.owner is None:
            text = f"Nobody {does}: partition {facts.partition} has no owner."
            yield Finding(text, "orchestrator worker", blocks)
        elif not reader.alive:
            text = f"Who {does} shows no sign of life ({reader.owner}); another worker takes over."
            yield Finding(text, "orchestrator partitions", blocks)
        elif reader.lag >= LAG_EVENTS:
            yield Finding(f"Who {does} is {reader.lag:,} events behind.", None, blocks=False)
    if facts.redis_error is not None:
        text = f"Redis cannot be reached, so nothing moves until it is back: {facts.redis_error}"
        yield Finding(text, None, blocks=not ended)
    for consumer in facts.parked_for:
        text = f"An event of it could not be handled by {consumer}, which has parked it."
        yield Finding(text, "orchestrator dead-letters list --kind event", blocks=not ended)


def _inputs(facts: Facts) -> Iterator[Finding]:
    for task in _some(facts, "waiting"):
        asked = json.dumps(task.prompt, ensure_ascii=False, default=str)
        if len(asked) > PROMPT_CHARS_MAX:
            asked = asked[: PROMPT_CHARS_MAX - 1] + "…"
        cure = f"orchestrator answer {facts.execution_id} {task.task} ANSWER"
        yield Finding(f"{task.task} asked for input {_ago(facts, task.since)}: {asked}", cure)


def _undoing(facts: Facts) -> Iterator[Finding]:
    undoing = facts.undoing
    if undoing is None:
        return
    done = f"{len(undoing.compensated):,} undone"
    ended = facts.status not in ("executing", "paused")
    if not ended:
        now = f", {undoing.under_way} is being undone" if undoing.under_way else ""
        text = f"It is compensating: {done}, {len(undoing.left):,} to go{now}."
        yield Finding(text, None, blocks=False)
    elif undoing.compensated:
        yield Finding(f"{done}: {_names(undoing.compensated)}.", None, blocks=False)
    for task in undoing.parked[:NAMED_MAX]:
        cure = f"orchestrator retry {facts.execution_id} --task {task} --undo"
        yield Finding(f"{task} could not be undone; a person must look.", cure, blocks=ended)


def _queues(facts: Facts) -> Iterator[Finding]:
    by_role: dict[str, list[OpenTask]] = {}
    delayed = []
    for task in facts.open:
        if task.status != "scheduled":
            continue
        if task.not_before is not None and task.not_before > facts.now:
            delayed.append(task)
        else:
            by_role.setdefault(task.role, []).append(task)
    for role, tasks in list(by_role.items())[:NAMED_MAX]:
        yield _queue(facts, role, tasks)
    if delayed:
        soonest = min(delayed, key=lambda task: task.not_before or facts.now)
        wait_s = ((soonest.not_before or facts.now) - facts.now).total_seconds()
        text = f"{_count(delayed)} a further attempt; {soonest.task} is next, in {wait_s:,.0f} s"
        why = f" (before: {soonest.error})" if soonest.error else ""
        yield Finding(f"{text}{why}.", None, blocks=False)


def _queue(facts: Facts, role: str, tasks: list[OpenTask]) -> Finding:
    oldest = min(task.since for task in tasks)
    what = f"{_count(tasks)} an agent as {role}, the first one {_ago(facts, oldest)}"
    service = facts.roles.get(role, Service())
    if service.able is None:
        return Finding(f"{what}.", None)
    if service.able:
        return Finding(f"{what}; {service.able:,} agents could take one now.", None, blocks=False)
    if service.busy:
        return Finding(f"{what}: all that serve it are busy.", None, blocks=False)
    known = f" ({service.registered:,} registered)" if service.registered else ""
    return Finding(f"{what}. {service.why}{known}")


def _signals(facts: Facts) -> Iterator[Finding]:
    for task in _some(facts, "pending"):
        if task.wait_for is not None:
            cure = f"orchestrator signal {facts.execution_id} {task.wait_for}"
            yield Finding(f"{task.task} waits for the signal {task.wait_for}.", cure)


def _running(facts: Facts) -> Iterator[Finding]:
    running = [task for task in facts.open if task.status == "running"]
    if not running:
        return
    oldest = min(running, key=lambda task: task.since)
    limit = f" of at most {oldest.timeout_s:,g} s" if oldest.timeout_s else ""
    took = (facts.now - oldest.since).total_seconds()
    text = f"{len(running):,} tasks run; {oldest.task} longest, for {took:,.0f} s{limit}"
    yield Finding(f"{text}, at {oldest.agent}.", None, blocks=False)


def _nothing(facts: Facts) -> Finding:
    text = f"The last that happened was {facts.last_event}, {_ago(facts, facts.last_time)}"
    return Finding(f"{text}; nothing seems to hold it up.", None, blocks=False)


def _some(facts: Facts, status: str) -> list[OpenTask]:
    return [task for task in facts.open if task.status == status][:NAMED_MAX]


def _count(tasks: list[OpenTask]) -> str:
    return "1 task waits for" if len(tasks) == 1 else f"{len(tasks):,} tasks wait for"


def _names(tasks: list[str]) -> str:
    more = f" and {len(tasks) - NAMED_MAX:,} more" if len(tasks) > NAMED_MAX else ""
    return ", ".join(tasks[:NAMED_MAX]) + more


def _ago(facts: Facts, then: datetime) -> str:
    seconds = max(0.0, (facts.now - then).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit} ago"
    return f"{seconds:,.0f} s ago"
