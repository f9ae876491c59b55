"""R12: who is chosen, by every policy, from whatever candidates there are."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.definition import validate
from aggregates.definitions.shape import Allocation
from processors.allocation.candidate import Candidate, limit, obstacle, why_waiting
from processors.allocation.need import Need, needs
from processors.allocation.policies import POLICIES
from tests.flows import document

PUSHING = sorted(set(POLICIES) - {"pull"})
ROLE = frozenset({"worker"})


def agent(name: str, capacity: int = 1, own: int = 0, **known: object) -> Candidate:
    """An agent of one host."""
    return Candidate(name, "h", "default", ROLE, capacity=capacity, own=own, **known)  # type: ignore[arg-type]


def chosen(policy: str, *candidates: Candidate, last: str = "", **need: object) -> str | None:
    """The name of who gets the task."""
    found = POLICIES[policy](candidates, Need(policy, **need), last)  # type: ignore[arg-type]
    return None if found is None else found.agent


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        agent=st.sampled_from("abcdefgh"),
        host=st.just("h"),
        tenant=st.just("default"),
        roles=st.just(ROLE),
        capabilities=st.frozensets(st.sampled_from("xyz")),
        capacity=st.integers(1, 4),
        cost=st.sampled_from([0.0, 1.0, 2.5]),
        region=st.sampled_from([None, "eu", "us"]),
        circuit=st.sampled_from(["closed", "closed", "open", "half_open"]),
        status=st.sampled_from(["active", "active", "active", "draining", "deregistered"]),
        silent=st.booleans(),
        lost=st.booleans(),
        own=st.integers(0, 4),
        others=st.integers(0, 2),
    ),
    max_size=8,
    unique_by=lambda one: one.agent,
).map(lambda some: sorted(some, key=lambda one: one.agent))
NEEDS = st.builds(
    Need,
    policy=st.sampled_from(PUSHING),
    capabilities=st.frozensets(st.sampled_from("xy")),
    max_concurrency=st.sampled_from([None, 1, 3]),
    region=st.sampled_from([None, "eu"]),
)


@settings(max_examples=300, deadline=None)
@given(CANDIDATES, NEEDS, st.sampled_from(["", "c", "zz"]))
def test_nobody_gets_a_task_who_cannot_take_it(
    candidates: list[Candidate], need: Need, last: str
) -> None:
    """R12, R30: and somebody does, whenever anybody can; of its own region where one is there."""
    found = POLICIES[need.policy](candidates, need, last)
    able = [one for one in candidates if obstacle(one, need) is None]
    assert (found is None) == (not able)
    assert (why_waiting("worker", candidates, need) is None) == bool(able)
    if found is None:
        return
    assert not found.lost
    assert not found.silent
    assert (found.status, found.circuit != "open") == ("active", True)
    assert found.load < found.capacity
    assert found.load < (need.max_concurrency or found.capacity)
    assert found.circuit == "closed" or found.load == 0, "a trial is one task at a time"
    assert need.capabilities <= found.capabilities
    wanted = need.region
    assert wanted in (None, found.region) or all(one.region != wanted for one in able)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 60))
def test_the_least_loaded_is_within_one_task_of_the_best(capacities: list[int], tasks: int) -> None:
    """R12: no other sharing of the tasks would leave the fullest agent emptier."""
    agents = [agent(f"a{n}", capacity) for n, capacity in enumerate(capacities)]
    need, last = Need("least_loaded"), ""
    given_out = 0
    for _ in range(tasks):
        if (one := POLICIES["least_loaded"](agents, need, last)) is None:
            break
        one.own += 1
        given_out, last = given_out + 1, one.agent
    assert given_out == min(tasks, sum(capacities))
    best = given_out / sum(capacities)
    for one in agents:
        assert (one.load - 1) / one.capacity <= best, "one task less, and it is not above average"


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(0, 50))
def test_everybody_has_their_turn(count: int, tasks: int) -> None:
    """R12."""
    agents = [agent(f"a{n}", 1_000) for n in range(count)]
    last, turns = "", Counter[str]()
    for _ in range(tasks):
        found = chosen("round_robin", *agents, last=last)
        assert found is not None
        turns[found], last = turns[found] + 1, found
    counts = [turns[one.agent] for one in agents]
    assert max(counts) - min(counts) <= 1


def test_who_is_full_is_passed_over_and_has_the_next_turn_when_there_is_room():
    a, b, c = agent("a"), agent("b", own=1), agent("c")
    assert chosen("round_robin", a, b, c, last="a") == "c"
    b.own = 0
    assert chosen("round_robin", a, b, c, last="c") == "a"
    assert chosen("round_robin", a, b, c, last="a") == "b"


def test_equals_take_turns():
    agents = [agent("a", 9), agent("b", 9)]
    assert chosen("least_loaded", *agents) == "a"
    assert chosen("least_loaded", *agents, last="a") == "b"
    assert chosen("lowest_cost", *agents, last="a") == "b"
    assert chosen("capability_score", *agents, last="a") == "b"


def test_the_least_loaded_is_the_emptiest_and_not_the_one_with_the_fewest():
    assert chosen("least_loaded", agent("a", 2, own=1), agent("b", 10, own=3)) == "b"


def test_the_closest_match_is_chosen():
    able = agent("a", capabilities=frozenset("xyz"))
    close = agent("b", capabilities=frozenset("xy"))
    unable = agent("c", capabilities=frozenset("x"))
    need = {"capabilities": frozenset("xy")}
    assert chosen("capability_score", able, close, unable, **need) == "b"
    close.own = 1
    assert chosen("capability_score", able, close, unable, **need) == "a"
    able.own = 1
    assert chosen("capability_score", able, close, unable, **need) is None


def test_the_cheapest_with_room_is_chosen():
    dear, cheap = agent("a", cost=2.0), agent("b", cost=0.5)
    assert chosen("lowest_cost", dear, cheap) == "b"
    cheap.own = 1
    assert chosen("lowest_cost", dear, cheap) == "a"


def test_the_same_region_comes_first_whatever_the_policy():
    far, near = agent("f", 2, region="us"), agent("n", 2, own=1, cost=9.0, region="eu")
    for policy in PUSHING:
        assert chosen(policy, far, near, region="eu") == "n"
    near.own = 2
    for policy in PUSHING:
        assert chosen(policy, far, near, region="eu") == "f"


def test_pulling_chooses_nobody():
    assert chosen("pull", agent("a")) is None


def test_why_a_task_waits_is_said_in_one_sentence():
    """R30: graceful degradation has a reason that can be asked for."""
    need = Need("least_loaded")
    assert why_waiting("worker", [], need) == "No live agent serves the role 'worker'."
    reason = "5 failures in a row."
    there = [agent("a", own=1), agent("b", circuit="open", reason=reason), agent("c", lost=True)]
    assert why_waiting("worker", there, need) == (
        "No agent of the role 'worker' can take a task: 1 circuit open, 1 full, 1 lost."
        " The first says: 5 failures in a row."
    )
    assert why_waiting("worker", [agent("a")], need) is None


def test_what_a_role_needs_comes_from_its_definition():
    said = document({"a": []})
    role = {"capabilities": ["x"], "max_concurrency": 3, "metadata": {"region": "eu"}}
    said["agents"] = {"worker": role}
    assert needs(validate(said)) == {}, "agents pull unless something else is said"


@pytest.mark.parametrize("policy", PUSHING)
def test_a_role_may_ask_for_more(policy: str) -> None:
    said = document({"a": []}, allocation=policy)
    said["agents"]["worker"] = {
        "capabilities": ["x"],
        "max_concurrency": 3,
        "metadata": {"region": "eu"},
    }
    assert needs(validate(said)) == {"worker": Need(policy, frozenset("x"), 3, "eu")}


def test_a_definition_may_name_exactly_the_policies_that_there_are():
    assert set(get_args(Allocation)) == set(POLICIES)


@pytest.mark.parametrize("most", [None, 1, 9])
def test_a_role_bounds_what_an_agent_does_at_once(most: int | None) -> None:
    bound = limit(agent("a", 4), Need("least_loaded", max_concurrency=most))
    assert bound == min(4, most or 4)
