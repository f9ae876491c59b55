"""Definitions that say what undoes a task, what it waits for, and how agents are chosen."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.definition import Coordination, Definition, validate
from aggregates.plan import plan
from aggregates.problem import Refused
from tests.flows import document

ROLES = {"worker": {}, "cashier": {}}


def said(task: dict[str, Any] | None = None, **coordination: Any) -> dict[str, Any]:
    """A document with two tasks, the second one said in full."""
    return document({"a": [], "b": task or {}}, **coordination) | {"agents": ROLES}


def refused(made: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        validate(made)
    return caught.value


# Undoing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "undoing"),
    [
        ("cancel", ("worker", "cancel")),
        ("undo:worker", ("worker", "undo:worker")),
        ("cashier/refund", ("cashier", "refund")),
        ("cashier/refund/all", ("cashier", "refund/all")),
        (None, None),
    ],
)
def test_a_task_is_undone_by_its_own_role_or_by_another(action, undoing):
    """R31."""
    found = validate(said({"compensation_action": action}))
    assert found.tasks[1].undoing == undoing
    assert plan(found).undoing == ({1: undoing} if undoing else {})


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("cashir/refund", "UNKNOWN_ROLE"),
        ("/refund", "UNKNOWN_ROLE"),
        ("cashier/", "INVALID_ID"),
        ("", "INVALID_ID"),
        (" undo", "INVALID_ID"),
        ("un\ndo", "INVALID_ID"),
        ("x" * 201, "INVALID_ID"),
    ],
)
def test_nobody_is_asked_to_undo_who_is_not_there(action, code):
    """R31: when it is defined, not when there is something to undo."""
    error = refused(said({"compensation_action": action}))
    assert (error.code, error.pointer) == (code, "/tasks/1/compensation_action")


def test_the_cure_names_the_role_that_was_meant():
    assert 'did you mean "cashier"?' in refused(said({"compensation_action": "cashir/x"})).detail


# Signals ----------------------------------------------------------------------------------------


def test_tasks_wait_for_signals():
    """R6."""
    found = validate(document({"a": {"wait_for": "go"}, "b": [], "c": {"wait_for": "go"}}))
    assert [task.wait_for for task in found.tasks] == ["go", None, "go"]
    drawn = plan(found)
    assert drawn.signals == {"go": (0, 2)}
    assert drawn.in_degree == (0, 0, 0), "the graph is that of the tasks"


@pytest.mark.parametrize("name", ["", " go", "a\0b", "x" * 201])
def test_a_signals_name_is_an_id(name):
    error = refused(said({"wait_for": name}))
    if "\0" not in name:
        assert (error.code, error.pointer) == ("INVALID_ID", "/tasks/1/wait_for")


def test_a_signals_name_is_text():
    assert refused(said({"wait_for": 5})).code == "INVALID_TYPE"


# Coordination -----------------------------------------------------------------------------------


def test_what_is_not_said_of_coordination_has_its_default():
    assert validate(said()).coordination == Coordination(True, 1000, "pull", 86_400.0, "automatic")


@pytest.mark.parametrize(
    "how", ["pull", "least_loaded", "round_robin", "capability_score", "lowest_cost"]
)
def test_agents_are_chosen_in_one_of_several_ways(how):
    """R12."""
    assert validate(said(allocation=how)).coordination.allocation == how


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("allocation", "random", "INVALID_VALUE"),
        ("allocation", 1, "INVALID_VALUE"),
        ("compensation", "never", "INVALID_VALUE"),
        ("queue_timeout_seconds", 0, "INVALID_VALUE"),
        ("queue_timeout_seconds", 1e12, "INVALID_VALUE"),
        ("queue_timeout_seconds", "9", "INVALID_TYPE"),
    ],
)
def test_what_coordination_cannot_be_is_refused(field, value, code):
    error = refused(said(**{field: value}))
    assert (error.code, error.pointer) == (code, f"/coordination/{field}")


def test_the_choices_are_named():
    assert "'least_loaded'" in refused(said(allocation="random")).detail
    assert "'manual'" in refused(said(compensation="never")).detail


# What is stored ---------------------------------------------------------------------------------


def test_what_is_said_is_stored_and_read_back():
    made = validate(
        said(
            {"wait_for": "go", "compensation_action": "cashier/refund"},
            allocation="lowest_cost",
            queue_timeout_seconds=60.5,
            compensation="manual",
        )
    )
    again = Definition.from_bytes(made.to_bytes())
    assert again == made
    assert again.tasks[1].wait_for == "go"
    assert again.coordination == Coordination(True, 1000, "lowest_cost", 60.5, "manual")


def test_a_definition_that_says_nothing_of_it_keeps_the_digest_that_it_always_had():
    """Or every stored revision would look revised."""
    digest = "28bef0b86e0b3b88ddb7fe40bee2b4bfa84a2437c85e04c46a7a4ad9b0efd821"
    assert validate(document({"a": [], "b": ["a"]})).digest == digest
