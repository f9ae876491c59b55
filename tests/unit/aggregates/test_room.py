"""An execution takes no more processors and memory at once than its start allows (R11, R12)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from aggregates.decider import Blueprint
from aggregates.definition import validate
from aggregates.execution import EXECUTION
from aggregates.execution_events import ExecutionCompleted, TaskScheduled
from tests.executions import done, fail, of_kind, start
from tests.flows import blueprint
from tests.spec import Given, after, given

ROLES = {"large": {"cpu": 2, "memory": 4096}, "small": {"cpu": 0.5, "memory": 512}, "free": {}}


def tasks(**roles: str) -> Blueprint:
    """Tasks without dependencies, by the roles that do them."""
    items = [{"task_id": name, "agent_role": role} for name, role in roles.items()]
    policy = {"initial_backoff_seconds": 0}
    document = {"name": "w", "agents": ROLES, "tasks": items, "retry_policy": policy}
    return blueprint(validate(document))


def in_flight(so_far: Given) -> set[str]:
    plan, status = so_far.state.plan, so_far.state.task_status
    return {name for name, now in zip(plan.ids, status, strict=True) if now in (1, 2)}


def test_what_does_not_fit_waits_and_nothing_passes_it():
    found = tasks(a="large", b="large", c="small", d="free")
    begun = after(start(found, max_cpu=3))
    assert in_flight(begun) == {"a"}, "b takes 2 more; c and d would fit, and come after it"
    freed = begun.when(done("a")).so()
    assert in_flight(freed) == {"b", "c", "d"}


def test_memory_is_a_limit_of_its_own():
    found = tasks(a="small", b="small", c="small")
    assert in_flight(after(start(found, max_memory=1024))) == {"a", "b"}
    assert in_flight(after(start(found, max_memory=1024, max_cpu=0.5))) == {"a"}
    assert in_flight(after(start(found))) == {"a", "b", "c"}


def test_a_failed_attempt_makes_room_for_its_next_one():
    found = tasks(a="large", b="large")
    again = after(start(found, max_cpu=2), fail("a"))
    assert in_flight(again) == {"a"}


@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        ({"max_cpu": 1}, "/max_cpu"),
        ({"max_memory": 0}, "/max_memory"),
        ({"max_cpu": -1}, "/max_cpu"),
    ],
)
def test_a_task_that_can_never_fit_is_refused_at_the_start(limits: Any, pointer: str):
    given().when(start(tasks(a="large"), **limits)).refused("INVALID_VALUE", pointer)


def test_a_role_that_nobody_plays_takes_nothing():
    assert in_flight(after(start(tasks(a="small"), max_cpu=1))) == {"a"}


@settings(max_examples=60, deadline=None)
@for_all(
    st.lists(st.sampled_from(sorted(ROLES)), min_size=1, max_size=12),
    st.integers(4, 12),
    st.randoms(use_true_random=False),
)
def test_it_never_takes_more_and_always_ends(roles: list[str], halves: int, chance: Any):
    """I: also where it is restored from a snapshot at any moment."""
    found = tasks(**{f"t{n}": role for n, role in enumerate(roles)})
    limit = halves / 2
    so_far = after(start(found, max_cpu=limit, max_memory=16_384))
    answered: set[str] = set()
    while open_ := sorted(in_flight(so_far)):
        takes = sum(ROLES[roles[int(name[1:])]].get("cpu", 0) for name in open_)  # type: ignore[misc]
        assert takes <= limit
        loaded = EXECUTION.load("e", EXECUTION.dump(so_far.state), found)
        assert loaded.room == so_far.state.room
        name = chance.choice(open_)
        so_far = so_far.when(done(name)).so()
        answered.add(name)
    assert len(answered) == len(roles) == len(of_kind(so_far.happened, TaskScheduled))
    assert isinstance(so_far.happened[-1], ExecutionCompleted)
