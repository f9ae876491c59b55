"""Which ready tasks start next, and how long a retry waits.

Order: priority, then the order in the file. `max_parallel_tasks` is back-pressure, not a failure. A
task with `parallel: false` runs alone: once it heads the queue nothing passes it, so it never
starves.
"""

from __future__ import annotations

from hashlib import sha256
from heapq import nsmallest
from typing import Any

from aggregates.definition import RetryPolicy
from aggregates.execution_events import TaskScheduled
from aggregates.execution_state import Execution
from aggregates.room import Room

RETRY_DELAY_MS_MAX = 86_400_000  # as the longest back-off that a definition may ask for


def schedule(
    state: Execution,
    freed: list[int],
    in_flight: int,
    leaving: int | None = None,
    *,
    at_once: bool = False,
) -> list[Any]:
    """The attempts to begin when `freed` become ready and `in_flight` are left.

    `leaving` is the task that makes room. An attempt after a failed one waits for its back-off, one
    after an answered question does not, and with `at_once` none does.
    """
    plan = state.plan
    assert plan is not None
    events: list[Any] = []
    for task in choose(state, freed, in_flight, leaving):
        attempt = state.attempts[task] + 1
        definition = plan.definition.tasks[task]
        delay_ms = 0
        if attempt > 1 and not at_once and (task == leaving or task not in state.asked):
            counted = state.counted(task, attempt)
            delay_ms = retry_delay_ms(state.policy_of(task), counted, f"{state.id}/{task}")
        events.append(
            TaskScheduled(
                plan.ids[task],
                attempt,
                definition.agent_role,
                plan.phase[task],
                definition.priority,
                delay_ms,
            )
        )
    return events


def choose(
    state: Execution, freed: list[int], in_flight: int, leaving: int | None = None
) -> list[int]:
    """The tasks to schedule when `freed` become ready and `in_flight` are left, best first."""
    plan = state.plan
    assert plan is not None
    slots = state.limit - in_flight
    if slots <= 0 or (state.alone and leaving is None):
        return []
    candidates = [(-plan.priority[task], task) for task in freed]
    if state.ready:
        # Almost always one slot is free: then only the head of the heap can be next.
        candidates += state.ready[:1] if slots == 1 else nsmallest(slots, state.ready)
    candidates.sort()
    chosen: list[int] = []
    for _, task in candidates[:slots]:
        if plan.exclusive[task]:
            if in_flight or chosen:
                break
            return [task]
        if state.room is not None and not _fits(state, state.room, [*chosen, task], leaving):
            break
        chosen.append(task)
    return chosen


def _fits(state: Execution, room: Room, entering: list[int], leaving: int | None) -> bool:
    assert state.plan is not None
    roles = [state.role_of(task) for task in entering]
    gone = None if leaving is None else state.role_of(leaving)
    return room.fits(state.plan.definition.agents, roles, gone)


def may_retry(policy: RetryPolicy, attempt: int, error: str) -> bool:
    """Whether an attempt that failed with this error may be followed by another."""
    if attempt >= policy.max_attempts:
        return False
    return not any(_named(error, name) for name in policy.non_retryable_errors)


def _named(error: str, name: str) -> bool:
    """Whether an error begins with a name, which ends where a word ends.

    `ValueError` names "ValueError" and "ValueError: no such column", and no "ValueErrors".
    """
    if not name or not error.startswith(name):
        return False
    after = error[len(name) : len(name) + 1]
    return not (after.isalnum() or after == "_")


def retry_delay_ms(policy: RetryPolicy, attempt: int, seed: str) -> int:
    """Milliseconds before an attempt may start: exponential, with jitter drawn from the seed."""
    if attempt <= 1:
        return 0
    seconds = min(
        policy.initial_backoff_seconds * policy.backoff_multiplier ** (attempt - 2),
        policy.max_backoff_seconds,
    )
    share = int.from_bytes(sha256(f"{seed}/{attempt}".encode()).digest()[:4]) / 2**32
    return min(int(seconds * (1 - policy.jitter * share) * 1000), RETRY_DELAY_MS_MAX)
