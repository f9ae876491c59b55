"""A plan: phases, degrees and paths as networkx sees them; cycles named as they are."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates.definition import Definition, validate
from aggregates.plan import CRITICAL_PATH_IDS_MAX, Plan, graph, plan
from aggregates.problem import LIST_ITEMS_MAX, Refused

Links = dict[str, list[str]]


def document(links: Links, durations: dict[str, float] | None = None) -> dict[str, Any]:
    tasks = [
        {"id": task, "agent": "a", "depends_on": before, "duration": (durations or {}).get(task, 0)}
        for task, before in links.items()
    ]
    return {"name": "x", "agents": {"a": {}}, "tasks": tasks}


def planned(links: Links, durations: dict[str, float] | None = None) -> Plan:
    return plan(validate(document(links, durations)))


@st.composite
def acyclic(draw: st.DrawFn, least: int = 1) -> Links:
    """Tasks in random order; each depends on some that come first in another (perhaps twice)."""
    count = draw(st.integers(least, LIST_ITEMS_MAX))
    order = draw(st.permutations([f"t{n}" for n in range(count)]))
    links = {
        task: draw(st.lists(st.sampled_from(order[:place]), max_size=6)) if place else []
        for place, task in enumerate(order)
    }
    return {task: links[task] for task in draw(st.permutations(order))}


@settings(max_examples=100, deadline=None)
@given(acyclic(), st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_a_plan_says_what_networkx_says(links: Links, seconds: list[int]) -> None:
    durations = {task: float(n) for task, n in zip(links, seconds, strict=False)}
    drawn = planned(links, durations)
    known: nx.DiGraph[str] = nx.DiGraph()
    known.add_nodes_from(links)
    known.add_edges_from((before, task) for task, all_ in links.items() for before in all_)
    assert nx.utils.graphs_equal(graph(drawn), known)
    assert drawn.edges == known.number_of_edges()
    generations = [set(members) for members in nx.topological_generations(known)]
    assert drawn.phases == len(generations)
    assert drawn.phase_sizes == tuple(map(len, generations))
    for place, task in enumerate(drawn.ids):
        assert drawn.index[task] == place
        assert task in generations[drawn.phase[place] - 1]
        assert drawn.in_degree[place] == known.in_degree(task) == len(set(links[task]))
        assert {drawn.ids[after] for after in drawn.successors[place]} == set(known[task])
        assert (place in drawn.sinks) == (known.out_degree(task) == 0)
    path = drawn.critical_path
    assert all(before in links[task] for before, task in pairwise(path))
    assert drawn.critical_path_seconds == sum(durations[task] for task in path)
    assert drawn.critical_path_seconds == longest(known, durations)


def longest(known: nx.DiGraph[str], durations: dict[str, float]) -> float:
    weighed: nx.DiGraph[str] = nx.DiGraph()
    weighed.add_edges_from(("", task, {"weight": durations[task]}) for task in known)
    weighed.add_edges_from((a, b, {"weight": durations[b]}) for a, b in known.edges)
    return float(nx.dag_longest_path_length(weighed))


@settings(max_examples=50, deadline=None)
@given(acyclic())
def test_canonical_bytes_give_the_same_plan(links: Links) -> None:
    definition = validate(document(links))
    again = Definition.from_bytes(definition.to_bytes())
    assert again == definition
    assert plan(again) == plan(definition)


@settings(max_examples=50, deadline=None)
@given(acyclic(), st.randoms(use_true_random=False))
def test_the_order_in_the_file_does_not_matter(links: Links, chance: random.Random) -> None:
    shuffled = list(links.items())
    chance.shuffle(shuffled)
    one, other = planned(links), planned(dict(shuffled))
    assert one.phase_sizes == other.phase_sizes
    assert all(one.phase[one.index[t]] == other.phase[other.index[t]] for t in links)
    assert len(one.critical_path) == len(other.critical_path) == one.phases


@settings(max_examples=100, deadline=None)
@given(acyclic(least=2), st.data())
def test_a_back_edge_is_named_as_a_cycle(links: Links, data: st.DataObject) -> None:
    drawn = planned(links)
    late = data.draw(st.sampled_from(drawn.ids))
    above = sorted(nx.ancestors(graph(drawn), late) | {late})
    early = data.draw(st.sampled_from(above))
    links = links | {early: [*links[early], late]}
    with pytest.raises(Refused) as caught:
        planned(links)
    error = caught.value
    cycle = error.facts["cycle"]
    assert error.code == "CYCLE"
    assert error.facts["cycle_length"] == len(cycle) == len(set(cycle))
    assert {early, late} <= set(cycle)
    for before, task in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        assert before in links[task]
    first = list(links).index(cycle[0])
    assert error.pointer == f"/tasks/{first}/depends_on"


def test_a_shortest_cycle_is_named_and_nothing_that_hangs_on_it() -> None:
    ring: Links = {f"r{n}": [f"r{n - 1}"] for n in range(50)} | {"r0": ["r49", "r2"]}
    links: Links = {"before": [], "self": []} | ring | {"behind": ["r7"], "after": ["behind"]}
    with pytest.raises(Refused) as caught:
        planned(links)
    assert caught.value.facts["cycle"] == ["r0", "r1", "r2"]
    with pytest.raises(Refused) as caught:
        planned(links | {"self": ["self"]})
    assert caught.value.facts["cycle"] == ["self"]


def test_a_long_cycle_is_named_in_few_words() -> None:
    links: Links = {f"{n:0150}": [f"{(n - 1) % 5000:0150}"] for n in range(5000)}
    with pytest.raises(Refused) as caught:
        planned(links)
    assert caught.value.facts["cycle_length"] == 5000
    assert len(caught.value.facts["cycle"]) == LIST_ITEMS_MAX
    assert len(str(caught.value)) < 1000


def test_long_chains_do_not_recurse() -> None:
    links: Links = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(20_000)}
    drawn = planned(dict(reversed(links.items())))
    assert drawn.phases == drawn.critical_path_tasks == 20_000
    assert drawn.critical_path == tuple(links)[:CRITICAL_PATH_IDS_MAX]
    assert drawn.critical_path_seconds == 0


def test_tasks_carry_what_scheduling_needs() -> None:
    tasks = [
        {"id": "one", "agent": "z", "priority": -3, "parallel": True},
        {"id": "two", "agent": "a", "parallel": False},
        {"id": "three", "agent": "z", "metadata": {"duration": 4}},
    ]
    said = {"name": "x", "agents": {"z": {}, "a": {}}, "tasks": tasks}
    drawn = plan(validate(said))
    assert drawn.roles == ("a", "z")
    assert drawn.role == (1, 0, 1)
    assert drawn.priority == (-3, 0, 0)
    assert drawn.exclusive == (False, True, False)
    assert drawn.critical_path == ("three",)
    assert drawn.critical_path_seconds == 4
    alone = plan(validate(said | {"coordination": {"default_parallel": False}}))
    assert alone.exclusive == (False, True, True)


def test_of_equally_long_paths_the_one_with_more_tasks_is_critical() -> None:
    drawn = planned({"a": [], "b": ["a"], "c": []}, {"c": 2, "b": 2})
    assert drawn.critical_path == ("a", "b")


def test_an_empty_definition_can_still_be_planned() -> None:
    drawn = plan(Definition("x", "1", "graph", {}, ()))
    assert (drawn.phases, drawn.critical_path, drawn.critical_path_seconds) == (0, (), 0.0)
