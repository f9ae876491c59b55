"""Batches of commands: each takes effect once, and what is wrong with one touches no other."""

from __future__ import annotations

import orjson
import pytest

from aggregates import DECIDERS
from processors import commands
from processors.partition_state import REFUSAL
from streams.codec import encode_command
from streams.message import Outcome
from tests.flows import document
from tests.partitions import Owner, answer, asking, create, here, start, told
from tests.tallies import TALLY, add


@pytest.fixture
async def owner() -> Owner:
    return await Owner().take()


# Once -------------------------------------------------------------------------------------------


async def test_a_command_given_three_times_has_one_effect_and_three_equal_outcomes(owner):
    """I4, F30: in one batch, in the next, and after a restart."""
    command = create()
    first, second = await owner.say(command, command)
    [third] = await owner.say(command)
    await owner.take()
    [fourth] = await owner.say(command)
    assert first == Outcome(command.id, 0, 1, 1)
    assert [o.repeated for o in (first, second, third, fourth)] == [False, True, True, True]
    assert {(o.first, o.last) for o in (second, third, fourth)} == {(1, 1)}
    assert len(await owner.events()) == 1


async def test_a_refusal_given_again_is_the_same_refusal(owner):
    """I4, F30: also where the owner has changed and knows of it from the log only."""
    command = start(workflow_id="nowhere")
    [first] = await owner.say(command)
    [second] = await owner.say(command)
    await owner.take()
    [third] = await owner.say(command)
    assert first.problem
    assert first.problem["code"] == "UNKNOWN_WORKFLOW"
    assert told(second) == told(third) == first
    assert [event.type for event in await owner.events()] == [REFUSAL]


async def test_a_command_that_expects_another_version_is_refused_and_changes_nothing(owner):
    """R50: what a reader has seen may have changed since; the aggregate's owner knows."""
    made = create()
    await owner.say(made)
    stale = asking(commands.archive_workflow(made.root).but(expected=0))
    right = asking(commands.archive_workflow(made.root).but(expected=1))
    [refused, done] = await owner.say(stale, right)
    assert refused.problem
    assert (refused.problem["code"], refused.problem["version"]) == ("VERSION_CONFLICT", 1)
    assert done.problem is None
    assert [event.type for event in await owner.events()][-2:] == [REFUSAL, "WorkflowArchived"]


async def test_after_a_restart_a_single_event_is_told_from_a_refusal(owner):
    good, bad, none = create(), create(definition={}), create()
    before = await owner.say(good, bad, none)
    assert [bool(o.problem) for o in before] == [False, True, False]
    assert before[2].last < before[2].first, "accepted, and it changed nothing"
    await owner.take()
    assert [told(o) for o in await owner.say(none, bad, good)] == before[::-1]


async def test_more_than_one_event_of_a_command_is_remembered_over_a_restart(owner):
    await owner.say(create())
    command = start()
    [first] = await owner.say(command)
    assert (first.first, first.last) == (2, 4)
    await owner.take()
    assert [told(o) for o in await owner.say(command)] == [first]


async def test_only_so_many_commands_are_remembered(owner, monkeypatch):
    monkeypatch.setattr("processors.partition_state.RECENT_COMMANDS_MAX", 3)
    said = [create(f"w{n}") for n in range(5)]
    await owner.say(*said)
    for _ in range(2):
        assert list(owner.part.outcomes) == [command.id for command in said[2:]]
        await owner.take()
    assert owner.part.unsure == {command.id for command in said[2:]}
    [again] = await owner.say(said[0])
    assert not again.repeated, "decided once more, and the aggregate knew it"
    assert again.last < again.first
    assert len(owner.part.unsure) == 2, "what is forgotten is not looked up any more"


# Poison and refusals ----------------------------------------------------------------------------


POISON = [
    b"",
    b"not json",
    b'{"id": "1"}',
    b'\xff\xfe{"a"',
    b"[1, 2]",
    b'{"id":"1","type":"T","subject":"execution/e","data":{"x":"\\u0000"}}',
    b'{"id":"1","type":"T","subject":"execution/e","data":{"x":"\\ud800"}}',
    b'{"id":"1","type":"T","subject":"execution/e","data":' + b"[" * 100_000 + b"]" * 100_000,
    b'{"id":"1","type":"T","subject":"execution/e","data":{"x":NaN}}',
]


async def test_what_cannot_be_understood_goes_to_the_dead_letters_and_the_rest_goes_on(owner):
    """F32, I20."""
    good = [create(f"w{n}") for n in range(len(POISON))]
    mixed = [one for pair in zip(good, POISON, strict=True) for one in pair]
    outcomes = await owner.say(*mixed)
    assert [o.problem for o in outcomes] == [None] * len(good)
    letters = owner.log.dead_letters.values()
    assert [letter.raw for letter in letters] == POISON
    assert [letter.entry for letter in letters] == [f"{2 * n}-0" for n in range(1, 10)]
    assert all(letter.source == "commands:{0}" and letter.reason for letter in letters)
    assert owner.part.offset == f"{len(mixed)}-0"


async def test_a_command_of_another_partition_is_a_dead_letter():
    """I3."""
    owner = await Owner(partitions=4, number=1).take()
    away, mine = here("w", 2, 4), here("w", 1, 4)
    [outcome] = await owner.say(create(away), create(mine))
    assert outcome.problem is None
    [letter] = owner.log.dead_letters.values()
    assert letter.reason.startswith("WRONG_PARTITION: workflow/")
    assert "partition 2" in letter.reason


async def test_what_is_understood_and_refused_is_an_event(owner):
    """R60: the audit trail has the attempts too."""
    command = answer("CompleteTask", "a")
    command.actor, command.tenant = "mallory", "acme"
    [outcome] = await owner.say(command)
    [event] = await owner.events()
    assert (event.type, event.subject, event.version) == (REFUSAL, "execution/e", 0)
    assert (event.actor, event.tenant, event.causation) == ("mallory", "acme", command.id)
    assert event.data == {
        "command_type": "CompleteTask",
        "command_id": command.id,
        **(outcome.problem or {}),
    }


@pytest.mark.parametrize(
    ("aggregate", "kind", "data", "code"),
    [
        ("nothing", "Do", {}, "UNKNOWN_COMMAND"),
        ("execution", "Explode", {}, "UNKNOWN_COMMAND"),
        ("execution", "StartExecution", {}, "MISSING_FIELD"),
        ("execution", "StartExecution", {"workflow_id": 1}, "INVALID_TYPE"),
        ("execution", "StartExecution", {"workflow_id": "w", "x": 1}, "UNKNOWN_FIELD"),
        (
            "execution",
            "StartExecution",
            {"workflow_id": "w", "revision": 2**40},
            "UNKNOWN_WORKFLOW",
        ),
    ],
)
async def test_an_unknown_or_wrong_command_is_refused_and_its_neighbours_are_not(
    owner, aggregate, kind, data, code
):
    """F32, I19."""
    wrong = asking(commands.command(aggregate, "x", kind, data))
    outcomes = await owner.say(create("v"), wrong, create("w"))
    assert [o.problem and o.problem["code"] for o in outcomes] == [None, code, None]


@pytest.mark.parametrize(("number", "why"), [(-1, "ZeroDivisionError"), (-2, "TypeError")])
async def test_a_decision_that_crashes_costs_its_own_command_only(number, why):
    """F33, I15: it is answered, and kept with its bytes to be tried by a better version."""
    owner = await Owner(deciders=(*DECIDERS, TALLY)).take()
    crash = add(number)
    outcomes = await owner.say(add(1), crash, add(2), create())
    assert [o.problem and o.problem["code"] for o in outcomes] == [None, "INTERNAL", None, None]
    assert why in (outcomes[1].problem or {})["detail"]
    assert [event.type for event in await owner.events()] == ["Added", "Added", "WorkflowCreated"]
    assert await owner.state("tally/t") == (2, [1, 2])
    await owner.take()
    [again] = await owner.say(crash)
    assert (again.problem, again.repeated) == (outcomes[1].problem, False)
    assert await owner.state("tally/t") == (2, [1, 2])
    first, second = owner.log.dead_letters.values()
    assert first.raw == second.raw == encode_command(crash)
    assert (first.subject, first.tenant, first.entry) == ("tally/t", "default", "2-0")
    assert first.reason.startswith("INTERNAL: Add is kept")


# Workflows --------------------------------------------------------------------------------------


async def test_a_definition_is_stored_with_the_commit_that_names_it(owner):
    """R7."""
    decided = await owner.decide(create(), create(definition=document({"a": ["a"]})))
    assert await owner.log.definitions([("w", 0)]) == []
    await owner.commit(decided)
    [row] = await owner.log.definitions([("w", 0)])
    [created, _] = await owner.events()
    assert (row.revision, row.digest) == (1, created.data["digest"])
    assert "_definition" not in created.data
    assert orjson.loads(row.body)["tasks"][1]["depends_on"] == ["a"]


async def test_an_execution_runs_the_newest_revision_or_the_one_it_names(owner):
    """R7."""
    wider = document({"a": [], "b": [], "c": []})
    await owner.say(create(), asking(commands.revise_workflow("w", definition=wider)))
    await owner.say(start("newest"), start("first", revision=1), start("none", revision=3))
    started = {
        event.root: event.data["tasks"]
        for event in await owner.events()
        if event.type == "ExecutionStarted"
    }
    assert started == {"newest": 3, "first": 2}
    refused = (await owner.events())[-1]
    assert (refused.root, refused.data["code"]) == ("none", "UNKNOWN_WORKFLOW")
    await owner.take()
    await owner.say(answer("CompleteTask", "a", execution_id="first"))
    [*_, last] = await owner.events()
    assert (last.type, last.data["task"]) == ("TaskScheduled", "b")


async def test_no_execution_starts_of_an_archived_workflow(owner):
    """R7: what runs goes on."""
    await owner.say(create())
    await owner.say(start("before"))
    await owner.say(asking(commands.archive_workflow("w")))
    [refused, went_on] = await owner.say(
        start("after"), answer("CompleteTask", "a", execution_id="before")
    )
    assert (refused.problem or {})["code"] == "WORKFLOW_ARCHIVED"
    assert went_on.problem is None


async def test_bytes_and_outcomes_say_where_the_events_are(owner):
    """I10: an outcome names the positions of its events."""
    await owner.say(create())
    command = start()
    [outcome] = await owner.say(encode_command(command))
    events = (await owner.events())[outcome.first - 1 : outcome.last]
    assert [e.type for e in events] == ["ExecutionStarted", "PhaseEntered", "TaskScheduled"]
    assert {e.causation for e in events} == {command.id}
    assert {e.correlation for e in events} == {command.id}
