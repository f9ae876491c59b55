"""What an execution waits for from outside: answers to its tasks' questions, and signals."""

from __future__ import annotations

from heapq import heappush
from typing import Any

import orjson

from aggregates.definitions.rules import INPUT_BYTES_MAX, wrong_id
from aggregates.definitions.shape import ATTEMPTS_MAX
from aggregates.execution_answers import accept, find, unsaid_start
from aggregates.execution_commands import ProvideInput, RequestInput, SignalExecution
from aggregates.execution_ending import over
from aggregates.execution_events import InputProvided, InputRequested, SignalReceived
from aggregates.execution_state import PENDING, WAITING, Execution
from aggregates.execution_tasks import go_on
from aggregates.problem import Refused
from aggregates.schedule import schedule
from streams.sealing.token import MARK, clear_bytes, is_sealed

SIGNALS_MAX = 1_000  # names; the engine keeps each until the execution has ended
REQUESTS_UP_TO = 255 - 2 * ATTEMPTS_MAX
"""The last attempt that may ask for input: an attempt's number is one byte, and whoever has asked
has all the attempts of the policy left, now and after one retry by a person."""


def request(state: Execution, command: RequestInput) -> list[Any]:
    """A task asks for something; others may begin meanwhile."""
    task = accept(state, command)
    if task is None:
        return []
    if command.attempt > REQUESTS_UP_TO:
        detail = f"The task {command.task!r} is in attempt {command.attempt}; it may ask no more."
        raise Refused("TOO_MANY_ATTEMPTS", f"{detail} Fail it instead.")
    asked = InputRequested(command.task, command.attempt, command.agent, command.prompt)
    return [*unsaid_start(state, task, command), asked, *go_on(state, [], task)]


def provide(state: Execution, command: ProvideInput) -> list[Any]:
    """Somebody answers; the first answer counts."""
    task = find(state, command.task)
    if state.task_status[task] != WAITING:
        if task in state.asked and not state.terminal:
            return []
        raise Refused("NOT_WAITING", f"The task {command.task!r} does not wait for an input.")
    check_size("input", command.input, "/input")
    said = InputProvided(command.task, state.attempts[task], command.input)
    if state.status == "paused":
        return [said]
    return [said, *schedule(state, [task], state.in_flight)]


def signal(state: Execution, command: SignalExecution) -> list[Any]:
    """Something happened; the first signal of a name counts, whether or not it is waited for."""
    if state.terminal:
        raise Refused("EXECUTION_ENDED", f"The execution {state.id} has {state.status}.")
    if wrong := wrong_id(command.name):
        raise Refused("INVALID_ID", f"The signal {command.name!r} {wrong}.", "/name")
    if command.name in state.signals or over(state):
        return []
    if len(state.signals) >= SIGNALS_MAX:
        raise Refused("TOO_MANY_SIGNALS", f"An execution has at most {SIGNALS_MAX:,} signals.")
    check_size("data", command.data, "/data")
    said = SignalReceived(command.name, command.data)
    if state.status == "paused":
        return [said]
    assert state.plan is not None
    waiting = state.plan.signals.get(command.name, ())
    freed = [task for task in waiting if state.waiting[task] == 1]
    return [said, *schedule(state, freed, state.in_flight)]


def check_size(what: str, value: Any, pointer: str) -> None:
    """Refuse what is too large to travel in an event."""
    if isinstance(value, str | list | dict):
        size = clear_bytes(value[MARK]) if is_sealed(value) else len(orjson.dumps(value))
        if size > INPUT_BYTES_MAX:
            detail = f"The {what} has {size:,} bytes; at most {INPUT_BYTES_MAX:,} may be: store it "
            raise Refused("TOO_LARGE", f"{detail}elsewhere and send a reference.", pointer)


# State ------------------------------------------------------------------------------------------


def requested(state: Execution, event: InputRequested) -> None:
    """The task waits for an answer, and nobody works on it meanwhile."""
    task = state.left(event.task, WAITING)
    state.asked.add(task)
    state.uncounted[task] = state.uncounted.get(task, 0) + 1


def provided(state: Execution, event: InputProvided) -> None:
    """The task is ready for its next attempt."""
    task = state.number(event.task)
    state.task_status[task] = PENDING
    heappush(state.ready, state.rank(task))


def heard(state: Execution, name: str) -> None:
    """What waited for the signal waits for one thing less."""
    assert state.plan is not None
    state.signals.add(name)
    for task in state.plan.signals.get(name, ()):
        state.freed(task)
