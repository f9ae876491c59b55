"""One id is one command, and what lies under one aggregate's id is one tenant's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from aggregates import DECIDERS
from processors.partition_state import REFUSAL
from streams.chain import verify
from streams.codec import decode_command, encode_command
from streams.log import Share
from streams.message import Command
from streams.quick import digest_of
from tests.partitions import Owner, answer, create, start, told
from tests.tallies import TALLY, add

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def owner() -> Owner:
    return await Owner(deciders=(*DECIDERS, TALLY)).take()


# One id, one command ----------------------------------------------------------------------------


def other(command: Command, **data: object) -> Command:
    """Another command under the same id."""
    return command.but(data=command.data | data)


@pytest.mark.parametrize("when", ["in one batch", "later", "after a restart"])
async def test_the_same_id_with_another_body_is_a_conflict(owner, when):
    """F30, I4: it changes nothing, is told so, and the first outcome stays the first's."""
    said = add(1)
    if when == "in one batch":
        first, conflict = await owner.say(said, other(said, number=2))
    else:
        [first] = await owner.say(said)
        if when == "after a restart":
            await owner.take()
        [conflict] = await owner.say(other(said, number=2))
    assert first.problem is None
    assert (conflict.problem or {})["code"] == "CONFLICT"
    assert conflict.last < conflict.first
    assert await owner.state("tally/t") == (1, [1])
    [again] = await owner.say(said)
    assert again == replace(first, repeated=True)


@pytest.mark.parametrize(
    "change",
    [{"type": "Do"}, {"root": "u"}, {"aggregate": "agent"}, {"tenant": "acme"}],
    ids=str,
)
async def test_whom_it_is_for_and_whose_it_is_belongs_to_a_command(owner, change):
    """F30: nobody hears the outcome of another tenant's command by guessing its id."""
    said = add(1)
    await owner.say(said)
    [conflict] = await owner.say(said.but(**change))
    assert (conflict.problem or {})["code"] == "CONFLICT"


async def test_a_repeat_may_differ_in_what_is_not_the_command(owner):
    """F30: in its time, trace and place to reply to, and in the order of its keys."""
    said = add(1, text="x")
    [first] = await owner.say(said)
    reordered = dict(reversed(said.data.items()))
    same = said.but(
        data=reordered, time="2027-01-01T00:00:00Z", traceparent="00-1", reply_to="replies:me"
    )
    assert encode_command(same) != encode_command(said)
    [again] = await owner.say(same)
    assert told(again) == first


async def test_a_storm_of_conflicts_fills_neither_the_log_nor_the_dead_letters(owner):
    """F30: one dead letter an id, also after a restart; each of them is answered."""
    said = add(1)
    await owner.say(said)
    before = len(await owner.events())
    for _ in range(2):
        storm = [other(said, number=n) for n in range(2, 50)]
        outcomes = await owner.say(*storm)
        assert {(o.problem or {})["code"] for o in outcomes} == {"CONFLICT"}
        await owner.take()
    assert len(await owner.events()) == before
    [letter] = owner.log.dead_letters.values()
    assert decode_command(letter.raw).data["number"] == 2
    assert letter.reason.startswith("CONFLICT: ")


async def test_commits_without_digests_are_read_and_verified(owner):
    """F42: they were written before there were any; whatever comes under their ids is a repeat."""
    said = add(1)
    decided = await owner.decide(said)
    decided.share.commands = [(said.id, 1)]
    await owner.commit(decided)
    assert (await verify(owner.log, 0)).ok
    await owner.take()
    [again] = await owner.say(other(said, number=2))
    assert (again.repeated, again.problem) == (True, None)


async def test_what_was_commanded_is_part_of_the_chain(owner):
    """R55: a digest that was changed afterwards is found."""
    await owner.say(add(1))
    [commit] = owner.log._commits[0]
    [(name, count, digest)] = commit.commands
    owner.log._commits[0] = [commit._replace(commands=[(name, count, digest ^ 1)])]
    assert not (await verify(owner.log, 0)).ok


def test_a_share_says_how_many_events_each_command_has():
    """The digest of a command is that of its bytes, however they are read."""
    said = add(1)
    assert digest_of(decode_command(encode_command(said))) == digest_of(said)
    assert Share(0, 1, 0, 1, b"", commands=[("a", 1), ("b", 1, 7)]).commands[1] == ("b", 1, 7)


# One aggregate, one tenant ----------------------------------------------------------------------


def of(tenant: str, command: Command) -> Command:
    return command.but(tenant=tenant)


@pytest.mark.parametrize("how", ["live", "after a restart", "from a snapshot"])
async def test_an_aggregate_is_of_the_tenant_of_its_first_event(owner, how):
    """I14, F36: whoever else speaks to it is refused, which its tenant can see."""
    await owner.say(of("acme", create()))
    await owner.say(of("acme", start()))
    before = await owner.state("execution/e")
    if how == "from a snapshot":
        await owner.save()
    if how != "live":
        await owner.take()
    spying = of("mallory", answer("CompleteTask", "a", output={"spied": True}))
    [refused, _] = await owner.say(spying, of("mallory", create()))
    assert (refused.problem or {})["code"] == "FOREIGN_TENANT"
    assert "acme" not in str(refused.problem)
    assert await owner.state("execution/e") == before
    [event] = [e for e in await owner.events() if e.causation == spying.id]
    assert (event.type, event.tenant, event.actor) == (REFUSAL, "acme", spying.actor)
    assert event.data["command_tenant"] == "mallory"
    assert {e.tenant for e in await owner.events()} == {"acme"}, "one tenant under one id"
    [well] = await owner.say(of("acme", answer("CompleteTask", "a")))
    assert well.problem is None


async def test_a_refusal_of_a_foreign_tenant_is_the_same_after_a_restart(owner):
    """F30: what the event says beside the problem is for the trail only."""
    await owner.say(of("acme", add(1)))
    spying = of("mallory", add(2))
    [first] = await owner.say(spying)
    await owner.take()
    [again] = await owner.say(spying)
    assert told(again) == first


async def test_a_refused_command_makes_nobody_an_owner(owner):
    """I14: only a fact does."""
    [refused] = await owner.say(of("mallory", add(0)))
    assert (refused.problem or {})["code"] == "NOTHING"
    [well] = await owner.say(of("acme", add(1)))
    assert well.problem is None
    await owner.take()
    [foreign] = await owner.say(of("mallory", add(2)))
    assert (foreign.problem or {})["code"] == "FOREIGN_TENANT"


async def test_no_execution_runs_another_tenants_workflow(owner):
    """I14: and nobody hears that there is one."""
    await owner.say(of("acme", create()))
    [refused] = await owner.say(of("mallory", start()))
    assert (refused.problem or {})["code"] == "UNKNOWN_WORKFLOW"
    [well] = await owner.say(of("acme", start()))
    assert well.problem is None
