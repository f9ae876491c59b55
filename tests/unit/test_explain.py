"""What is said about an execution that does not move: one test a reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from processors.explain.facts import Facts, OpenTask, Reader, Service, Undoing
from processors.explain.findings import NAMED_MAX, Finding, findings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = NOW - timedelta(seconds=90)
OWNED = [Reader(name, "w1", True, 0) for name in ("commands", "managers", "projections")]


def facts(status: str = "executing", **more: Any) -> Facts:
    given = {"readers": OWNED} | more
    return Facts("x", status, NOW, 3, "TaskScheduled", BEFORE, 5, 1, **given)


def task(status: str, task_id: str = "t", **more: Any) -> OpenTask:
    return OpenTask(task_id, status, "r", 1, BEFORE, **more)


def only(found: list[Finding]) -> Finding:
    [finding] = found
    return finding


def test_a_paused_execution_names_who_why_and_how_to_go_on():
    said = only(findings(facts("paused", reason="lunch", actor="ada", since=BEFORE)))
    assert said == Finding("It was paused by ada 1.5 min ago: lunch", "orchestrator resume x")


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_what_has_ended_is_not_held_up(status):
    said = only(findings(facts(status, since=BEFORE, readers=[])))
    assert said == Finding(f"It has {status} 1.5 min ago.", None, False)


def test_a_failed_execution_can_be_gone_on_with_unless_it_was_undone():
    assert only(findings(facts("failed", reason="no"))).cure == "orchestrator retry x"
    undone = facts("failed", undoing=Undoing(compensated=["a"], parked=["b"]))
    first, *rest = findings(undone)
    assert first == Finding(
        "b could not be undone; a person must look.", "orchestrator retry x --task b --undo"
    )
    assert [f.cure for f in rest] == [None, None]
    assert "1 undone: a." in rest[1].text


@pytest.mark.parametrize("consumer", ["commands", "managers"])
def test_a_partition_without_an_owner_blocks(consumer):
    said = only(findings(facts(readers=[Reader(consumer, None, False, 0)])))
    assert "has no owner" in said.text
    assert (said.cure, said.blocks) == ("orchestrator worker", True)


def test_an_owner_that_shows_no_life_blocks_and_a_slow_read_model_does_not():
    dead = only(findings(facts(readers=[Reader("commands", "w1", False, 0)])))
    assert ("no sign of life" in dead.text, dead.blocks) == (True, True)
    slow = only(findings(facts(readers=[Reader("projections", "w1", True, 5_000)])))
    assert ("5,000 events behind" in slow.text, slow.blocks) == (True, False)


@pytest.mark.parametrize(
    ("service", "words", "blocks"),
    [
        (Service(0, 0, why="No live agent serves it."), "No live agent serves it.", True),
        (Service(2, 0, why="Lost."), "Lost. (2 registered)", True),
        (Service(2, 0, busy=True), "all that serve it are busy", False),
        (Service(2, 4), "4 agents could take one now", False),
        (Service(2), "1 task waits for an agent as r, the first one 1.5 min ago.", True),
    ],
)
def test_a_scheduled_task_says_why_nobody_takes_it(service, words, blocks):
    said = only(findings(facts(open=[task("scheduled")], roles={"r": service})))
    assert words in said.text
    assert said.blocks is blocks


def test_a_retry_that_waits_for_its_delay_says_until_when_and_what_failed():
    later = task("scheduled", not_before=NOW + timedelta(seconds=12), error="no paper")
    said = only(findings(facts(open=[later])))
    assert said.text == (
        "1 task waits for a further attempt; t is next, in 12 s (before: no paper)."
    )
    assert not said.blocks


def test_a_task_that_asked_is_shown_with_its_question_bounded():
    said = only(findings(facts(open=[task("waiting", prompt={"ok?": "é" * 1_000})])))
    assert said.cure == "orchestrator answer x t ANSWER"
    assert said.text.startswith('t asked for input 1.5 min ago: {"ok?": "ééé')
    assert len(said.text) < 300


def test_a_signal_that_has_not_come_is_named_and_dependencies_are_not():
    said = findings(facts(open=[task("pending", wait_for="approved"), task("pending", "u")]))
    assert only(said) == Finding(
        "t waits for the signal approved.", "orchestrator signal x approved"
    )


def test_running_tasks_are_told_by_the_longest():
    young = OpenTask("u", "running", "r", 1, NOW, "b")
    said = only(findings(facts(open=[young, task("running", agent="a", timeout_s=300.0)])))
    assert said.text == "2 tasks run; t longest, for 90 s of at most 300 s, at a."
    assert not said.blocks


def test_compensation_says_how_far_it_is():
    said = findings(facts(undoing=Undoing(["a", "b"], ["c"], ["d"], under_way="b")))
    assert "1 undone, 2 to go, b is being undone" in said[0].text
    assert "d could not be undone" in said[1].text


def test_what_blocks_comes_first_and_each_kind_is_bounded():
    many = [task("waiting", f"t{n}") for n in range(50)]
    said = findings(facts(open=[task("running", "z", agent="a"), *many], redis_error="gone"))
    assert [f.blocks for f in said] == [True] * (NAMED_MAX + 1) + [False]
    assert len(said) == NAMED_MAX + 2


def test_where_nothing_holds_it_up_the_last_event_is_named():
    said = only(findings(facts()))
    assert "TaskScheduled, 1.5 min ago" in said.text
