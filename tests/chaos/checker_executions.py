"""The invariants of executions: I7, I8, I9, I14, I15, I17, I18; the same manner as `checker`."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.chaos.checker import (
    REFUSED,
    Facts,
    Json,
    accounting,
    acked_command_has_outcome,
    aggregate_in_one_partition,
    checkpoint_not_ahead,
    command_handled_once,
    epoch_monotonic,
    hash_links,
    mirror_equals_log,
    positions_gapless,
    say,
    versions_contiguous,
)

ENDS = {
    "ExecutionCompleted": "completed",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}
TASK_ENDS = ("TaskCompleted", "TaskCancelled")
AFTER_THE_END = ("TaskCompensated", "CompensationScheduled", "CompensationFailed")
AFTER_THE_END += ("CompensationParked", "ExecutionRetried")


def task_completed_once(facts: Facts) -> list[str]:
    """I7: a task completes at most once, and nothing of it comes after its end."""
    wrong = []
    for subject, events in facts.executions.items():
        ended: dict[str, str] = {}
        for event in events:
            if event["type"] == "ExecutionRetried":
                ended = {t: how for t, how in ended.items() if t not in event["data"]["tasks"]}
            if not event["type"].startswith("Task") or event["type"] == "TaskCompensated":
                continue
            name = event["data"]["task"]
            if name in ended:
                wrong.append(f"{subject}: {event['type']} of {name} after its {ended[name]}")
            retried = event["data"].get("retried")
            if event["type"] in TASK_ENDS or retried is False:
                ended[name] = event["type"]
    return wrong


def execution_terminal_once(facts: Facts) -> list[str]:
    """I8: an execution ends once, nothing but its undoing comes after, and its tasks have ended."""
    wrong = []
    for subject, events in facts.executions.items():
        ends, tasks = 0, {}
        for event in events:
            kind = event["type"]
            if kind == "ExecutionRetried":
                ends = 0
            elif ends and kind not in AFTER_THE_END:
                wrong.append(f"{subject}: {kind} after the end")
            if kind in ENDS:
                ends += 1
                open_ = [name for name, is_open in tasks.items() if is_open]
                if open_:
                    wrong.append(f"{subject} has ended, its tasks {open_[:3]} have not")
                if kind == "ExecutionCompleted" and len(tasks) != _of(facts, events, "tasks"):
                    wrong.append(f"{subject} has completed {len(tasks)} tasks only")
            if kind in ("TaskScheduled", "TaskStarted", "TaskCompleted", "TaskCancelled"):
                tasks[event["data"]["task"]] = kind in ("TaskScheduled", "TaskStarted")
            elif kind in ("TaskFailed", "TaskTimedOut"):
                tasks[event["data"]["task"]] = event["data"]["retried"]
        if ends > 1:
            wrong.append(f"{subject} has ended {ends} times")
    return wrong


def compensation_in_reverse(facts: Facts) -> list[str]:
    """I9: only what had completed is undone, in reverse order, and the end says what was."""
    wrong = []
    for subject, events in facts.executions.items():
        definition = _definition(facts, events)
        action = {t["task_id"]: t.get("compensation_action") for t in definition["tasks"]}
        completed = [e["data"]["task"] for e in events if e["type"] == "TaskCompleted"]
        undoable = [name for name in reversed(completed) if action.get(name)]
        started = [e for e in events if e["type"] == "CompensationStarted"]
        undone = [e["data"]["task"] for e in events if e["type"] == "TaskCompensated"]
        parked = [e["data"]["task"] for e in events if e["type"] == "CompensationParked"]
        if not started:
            if undone or parked:
                wrong.append(f"{subject} undoes {undone} without having begun to")
            continue
        if len(started) > 1 or started[0]["data"]["tasks"] != undoable:
            wrong.append(f"{subject} undoes {started[0]['data']['tasks']}, not {undoable}")
        order = [name for name in undoable if name in undone]
        if undone != order or len(set(undone)) != len(undone):
            wrong.append(f"{subject} has undone {undone}, not {order}")
        for event in events[events.index(started[0]) :]:  # it may have failed, and gone on, before
            if event["type"] in ("ExecutionFailed", "ExecutionCancelled"):
                said = event["data"]
                both = (said.get("compensated") or []) + (said.get("not_compensated") or [])
                if sorted(both) != sorted(undoable):
                    wrong.append(f"{subject} says that {both} were undone or not, not {undoable}")
                if not set(said.get("compensated") or []) <= set(undone):
                    wrong.append(f"{subject} says more than it has undone")
    return wrong


def aggregate_in_one_tenant(facts: Facts) -> list[str]:
    """I14: all that happens to an aggregate is of one tenant."""
    tenants: dict[str, set[str]] = defaultdict(set)
    for subject, events in facts.subjects.items():
        tenants[subject] |= {e["tenant"] for e in events if e["type"] != REFUSED}
    return [f"{subject} is of {all_}" for subject, all_ in tenants.items() if len(all_) > 1]


def converges(facts: Facts) -> list[str]:
    """I15: after quiet, every execution that was started has ended."""
    wrong = []
    for subject, events in facts.executions.items():
        if not any(event["type"] in ENDS for event in events):
            last = events[-1]
            wrong.append(f"{subject} is stuck after {last['type']} {last['data'].get('task', '')}")
    return wrong


def started_after_dependencies(facts: Facts) -> list[str]:
    """I17: a task is given out, and begins, after every task that it waits for has completed."""
    wrong = []
    for subject, events in facts.executions.items():
        needs = {
            t["task_id"]: set(t.get("depends_on") or ())
            for t in _definition(facts, events)["tasks"]
        }
        completed: set[str] = set()
        for event in events:
            name = event["data"].get("task")
            if event["type"] in ("TaskScheduled", "TaskStarted") and not needs[name] <= completed:
                wrong.append(f"{subject}: {event['type']} of {name} too early")
            elif event["type"] == "TaskCompleted":
                completed.add(name)
    return wrong


def attempts_within_policy(facts: Facts) -> list[str]:
    """I18: attempts are counted 1, 2 … up to the policy's; a new one follows only a failure."""
    wrong = []
    for subject, events in facts.executions.items():
        definition = _definition(facts, events)
        common = definition.get("retry_policy") or {}
        allowed = {
            t["task_id"]: (common | (t.get("retry_policy") or {})).get("max_attempts", 3)
            for t in definition["tasks"]
        }
        failed, attempt, asked = Counter[str](), Counter[str](), Counter[str]()
        retried = any(event["type"] == "ExecutionRetried" for event in events)
        for event in events:
            name, kind = event["data"].get("task"), event["type"]
            if kind in ("TaskFailed", "TaskTimedOut", "InputProvided"):
                failed[name] += 1
                asked[name] += kind == "InputProvided"
            elif kind == "TaskScheduled":
                attempt[name] += 1
                if event["data"]["attempt"] != attempt[name]:
                    wrong.append(f"{subject}: attempt {event['data']['attempt']} of {name}")
                if attempt[name] != failed[name] + 1 and not retried:
                    wrong.append(f"{subject}: {name} is tried again without having failed")
                if attempt[name] > allowed[name] + asked[name] and not retried:
                    wrong.append(f"{subject}: {name} is tried {attempt[name]} times")
    return wrong


def _definition(facts: Facts, events: list[Json]) -> Json:
    return facts.definitions[_of(facts, events, "workflow_id"), _of(facts, events, "revision")]


def _of(facts: Facts, events: list[Json], name: str) -> Any:
    assert events[0]["type"] == "ExecutionStarted", events[0]
    return events[0]["data"][name]


INVARIANTS = {
    "I1 positions-gapless": positions_gapless,
    "I2 versions-contiguous": versions_contiguous,
    "I3 aggregate-in-one-partition": aggregate_in_one_partition,
    "I4 command-handled-once": command_handled_once,
    "I5 epoch-monotonic": epoch_monotonic,
    "I6 hash-links": hash_links,
    "I7 task-completed-once": task_completed_once,
    "I8 execution-terminal-once": execution_terminal_once,
    "I9 compensation-in-reverse": compensation_in_reverse,
    "I10 acked-command-has-outcome": acked_command_has_outcome,
    "I11 mirror-equals-log": mirror_equals_log,
    "I12 checkpoint-not-ahead": checkpoint_not_ahead,
    "I14 aggregate-in-one-tenant": aggregate_in_one_tenant,
    "I15 converges": converges,
    "I17 started-after-dependencies": started_after_dependencies,
    "I18 attempts-within-policy": attempts_within_policy,
    "I20 accounting": accounting,
}
"""I13 (projection == fold) is in `read_models`, I16 and I19 are measured while the run goes."""


def violations(facts: Facts) -> list[str]:
    """Everything that is wrong, by invariant; a check that cannot be made is wrong as well."""
    wrong = []
    for name, check in INVARIANTS.items():
        try:
            wrong += say(name, check(facts))
        except (AssertionError, KeyError, IndexError, TypeError) as error:
            wrong.append(f"{name}: cannot be checked: {type(error).__name__}: {error}")
    return wrong
