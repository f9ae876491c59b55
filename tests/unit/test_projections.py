"""What rows come of which events: the pure half of the read models."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates import DECIDERS
from aggregates.agent_messages import (
    AgentDeregistered,
    AgentDrained,
    AgentLost,
    AgentRegistered,
    AgentReturned,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
)
from aggregates.execution_events import (
    CompensationFailed,
    CompensationParked,
    CompensationScheduled,
    CompensationStarted,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionRetried,
    ExecutionStarted,
    InputProvided,
    InputRequested,
    PhaseEntered,
    TaskCompensated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TaskTimedOut,
)
from aggregates.workflow import WorkflowArchived, WorkflowCreated
from projections import PROJECTIONS, agents, executions, histories, tasks, workflows
from projections.projection import Projection
from projections.tasks import began
from streams.message import Event
from tests.spec import facts

TIME = "2026-01-02T03:04:05Z"
STARTED = ExecutionStarted("w", 1, "d", "flow", 2, 2, 10, {"a": 1})
WRITTEN = WorkflowCreated("flow", "1", 1, "d", "graph", ["b", "a"], 2, 1, 2, 0.5)
REGISTERED = AgentRegistered("n", ["r"], [], 2)


def project(model: Projection, *happened: Any, root: str = "x") -> dict[str, list[tuple[Any, ...]]]:
    """The rows that follow from events, by the statement that takes them."""
    wanted = [e for e in facts(happened, root) if not model.types or e.type in model.types]
    return {text: list(zip(*given, strict=True)) for text, given in model.apply(wanted)}


def changed(*happened: Any) -> dict[str, Any]:
    """What a batch changes in the row of an execution, but for the defaults."""
    found = project(executions.EXECUTIONS, *happened)[executions.CHANGE][0]
    said = dict(zip(executions.Change.__slots__, found, strict=True))
    return {name: value for name, value in said.items() if value not in (None, 0)}


def test_every_event_has_a_read_model_and_every_read_model_takes_known_events():
    known = {event.__name__ for decider in DECIDERS for event in decider.events}
    taken = set().union(*(projection.types for projection in PROJECTIONS))
    assert taken == known


def test_consumers_and_tables_are_each_somebodys_own():
    consumers = [projection.consumer for projection in PROJECTIONS]
    owned = [table for projection in PROJECTIONS for table in projection.tables]
    assert len(set(consumers)) == len(consumers)
    assert len(set(owned)) == len(owned)


def test_a_started_execution_is_a_row_and_what_followed_a_change():
    found = project(executions.EXECUTIONS, STARTED, PhaseEntered(1, 2))
    assert list(found) == [executions.START, executions.CHANGE]
    row = ("x", "default", "w", "flow", 1, 2, 2, '{"a":1}', None, TIME, 0, 1)
    assert found[executions.START] == [row]
    assert changed(STARTED, PhaseEntered(1, 2)) == {
        "id": "x", "phase": "1/2", "time": TIME, "position": 2
    }  # fmt: skip


def test_a_batch_of_one_task_adds_up_to_what_is_left_of_it():
    scheduled, begun = TaskScheduled("t", 1, "r", 1), TaskStarted("t", 1, "me")
    failed, again = TaskFailed("t", 1, "me", "no", True), TaskScheduled("t", 2, "r", 1)
    rest = {"id": "x", "time": TIME}
    assert changed(scheduled) == rest | {"scheduled": 1, "position": 1}
    assert changed(begun) == rest | {"scheduled": -1, "running": 1, "position": 1}
    assert changed(scheduled, begun, failed, again) == rest | {
        "scheduled": 1, "attempts_failed": 1, "position": 4
    }  # fmt: skip
    last = changed(begun, TaskCompleted("t", 1, "me"))
    assert last == rest | {"scheduled": -1, "completed": 1, "position": 2}


def test_the_reason_is_that_of_the_present_status():
    ended = changed(ExecutionPaused("lunch"), ExecutionCompleted(1, {"t": None}))
    assert "reason" not in ended
    assert (ended["status"], ended["ended"], ended["output"]) == ("completed", TIME, '{"t":null}')
    assert changed(ExecutionPaused("lunch"), ExecutionFailed("broke"))["reason"] == "broke"


def test_a_scheduled_task_is_a_row_and_a_later_word_a_change():
    scheduled, begun = TaskScheduled("t", 1, "r", 1, 5), TaskStarted("t", 1, "me")
    rows = project(tasks.TASKS, scheduled, begun)[tasks.SCHEDULE]
    assert rows == [("x", "t", "default", "running", 1, "me", TIME, None, None, None, None, None,
                     "r", 1, 5, TIME)]  # fmt: skip
    rows = project(tasks.TASKS, begun, TaskCompleted("t", 1, "me", [1]))[tasks.CHANGE]
    said = ("x", "t", "default", "completed", 1, "me", TIME, TIME, None, "[1]", None, None)
    assert rows == [said]


def test_a_further_attempt_begins_anew_and_keeps_the_error():
    said = (TaskStarted("t", 1, "me"), TaskFailed("t", 1, "me", "no", True))
    rows = project(tasks.TASKS, *said, TaskScheduled("t", 2, "r", 1))[tasks.SCHEDULE]
    assert rows[0][3:10] == ("scheduled", 2, None, None, None, "no", None)


def test_falsy_outputs_are_outputs():
    for output, text in ((0, "0"), (False, "false"), ("", '""'), ([], "[]"), (None, None)):
        rows = project(tasks.TASKS, TaskCompleted("t", 1, "me", output))[tasks.CHANGE]
        assert rows[0][9] == text


def test_a_time_out_leaves_whom_it_found_and_a_question_waits():
    found = changed(TaskTimedOut("t", 1, "me", "run", "late", True))
    assert found == {"id": "x", "running": -1, "attempts_failed": 1, "time": TIME, "position": 1}
    found = changed(TaskTimedOut("t", 1, None, "queue", "nobody", False))
    assert (found["scheduled"], found["failed"]) == (-1, 1)
    found = changed(InputRequested("t", 1, "me", "why?"))
    assert (found["running"], found["waiting"]) == (-1, 1)
    assert changed(InputProvided("t", 1))["waiting"] == -1


def test_what_ends_or_is_undone_leaves_nothing_in_flight_and_a_retry_counts_anew():
    begun = (TaskScheduled("t", 1, "r", 1), TaskStarted("t", 1, "me"))
    undone = changed(*begun, CompensationStarted("failed", "no", "t", ["s"]))
    assert (undone["cleared"], undone["phase"]) == (True, "compensating")
    assert not undone.keys() & {"scheduled", "running", "ended"}
    failed = TaskFailed("t", 1, "me", "no", False)
    again = ExecutionRetried("w", 1, "d", ["t"], "fixed")
    found = changed(
        *begun, failed, ExecutionFailed("no", "t"), again, TaskScheduled("t", 2, "r", 1)
    )
    assert found == {
        "id": "x", "status": "executing", "cleared": True, "again": True, "scheduled": 1,
        "attempts_failed": 1, "reason": "fixed", "time": TIME, "position": 6,
    }  # fmt: skip
    rows = project(tasks.TASKS, failed, again)[tasks.CHANGE]
    assert rows[0][3] == "pending"


def test_undoing_a_task_is_beside_its_own_status():
    said = (
        CompensationScheduled("t", 1, "r", "undo"),
        CompensationFailed("t", 1, "me", "stuck", False),
        CompensationParked("t", 1, "stuck"),
    )
    [row] = project(tasks.TASKS, *said)[tasks.CHANGE]
    assert (row[3], row[4], row[8], row[11]) == ("", 0, "stuck", "parked")
    [row] = project(tasks.TASKS, *said, TaskCompensated("t", 2, "me"))[tasks.CHANGE]
    assert row[11] == "compensated"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("2026-01-02T03:04:04Z", "2026-01-02T03:04:04+00:00"),
        ("2026-01-02T19:04:04+16:00", "2026-01-02T03:04:04+00:00"),
        ("2026-01-02T03:04:04+00:00:01.5", "2026-01-02T03:04:02.500000+00:00"),
        ("2020-01-01T00:00:00+23:59", "2019-12-31T00:01:00+00:00"),
        *((nothing, TIME) for nothing in (
            None, "", "garbage", "2026-01-02", "2026-01-02T03:04:04", "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "infinity", 5, {}, [], True,
        )),
    ],
)  # fmt: skip
def test_when_an_agent_began_is_a_time_of_the_past_in_utc_or_when_we_heard(said, kept):
    assert began(said, TIME) == kept


def test_workflows_keep_their_order_one_statement_each():
    found = facts([WRITTEN, WorkflowArchived("old")])
    (write, row), (archive, end) = workflows.WORKFLOWS.apply(found)
    assert (write, archive, end) == (workflows.WRITE, workflows.ARCHIVE, (["x"], [TIME]))
    assert row[7] == ['["b","a"]']


def test_an_agent_is_registered_as_of_its_last_word():
    changed = AgentRegistered("m", ["r"], [], 4, None, 2.5, "eu")
    rows = project(agents.AGENTS, REGISTERED, AgentDrained("why"), changed, AgentDrained("now"))
    new = ("x", "default", "m", '["r"]', "[]", 4, 2.5, "eu", TIME)
    changes = ("x", "draining", None, None, "now", TIME)
    assert rows == {agents.REGISTER: [new], agents.CHANGE: [changes]}
    rows = project(agents.AGENTS, AgentDrained("why"))
    assert rows == {agents.CHANGE: [("x", "draining", None, None, "why", TIME)]}


def test_what_keeps_an_agent_from_work_is_told_with_its_reason():
    """R30."""
    opened, half = CircuitOpened("5 failures", 5, 9.0, 1), CircuitHalfOpened()
    rows = project(agents.AGENTS, AgentLost("silent"), opened, half)
    assert rows == {agents.CHANGE: [("x", None, "half_open", True, "5 failures", TIME)]}
    rows = project(agents.AGENTS, CircuitClosed("works"), AgentReturned())
    assert rows == {agents.CHANGE: [("x", None, "closed", False, "", TIME)]}
    rows = project(agents.AGENTS, AgentLost("silent"), AgentDeregistered("bye"))
    assert rows == {agents.CHANGE: [("x", "deregistered", "closed", False, "bye", TIME)]}


def test_an_agent_stays_with_the_tenant_that_registered_it_first():
    first, second = facts([REGISTERED], tenant="a"), facts([REGISTERED], tenant="b", after=1)
    ((_, given), _) = agents.AGENTS.apply([*first, *second])
    assert given[1] == ["a"]


def test_a_history_is_the_span_of_an_aggregates_events_refusals_included():
    refused = Event(1, 9, "CommandRejected", "execution", "y", 0, TIME, "t", "", None, None, {})
    ((_, given),) = histories.HISTORIES.apply([*facts([STARTED, PhaseEntered(1, 2)]), refused])
    assert list(zip(*given, strict=True)) == [("execution/x", 0, 1, 2), ("execution/y", 1, 9, 9)]
