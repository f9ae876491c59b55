"""R60, F36, I14, I20: what has a valid token is let in, and the rest is recorded."""

from __future__ import annotations

import pytest

from processors import commands
from processors.access.admission import Admission
from processors.access.keys import shared
from processors.partition_state import REFUSAL
from streams.codec import encode_command, stamped
from streams.message import Command
from tests.access import ENGINE, SECRET, SHARED, tokens
from tests.access import token as signed
from tests.executions import ROLE
from tests.partitions import NOW, Owner, asking, create, start

AT = NOW.timestamp()


def token(*roles: str, **more: object) -> str:
    return signed(*roles, **({"now": AT} | more))


@pytest.fixture
async def owner() -> Owner:
    mine = Owner()
    mine.admission = Admission(tokens(SHARED, ENGINE))
    return await mine.take()


def by(command: Command, *roles: str, **more: object) -> bytes:
    return stamped(encode_command(command), token(*roles, **more))


async def letters(owner: Owner) -> list[tuple[str, bytes, str | None]]:
    return [(one.reason, one.raw, one.tenant) for one in owner.log.dead_letters.values()]


async def test_a_command_without_a_valid_token_is_a_dead_letter_and_nothing_else(owner):
    other = signed("admin", now=AT, key=shared(b"another key altogether, of 32 bytes"))
    said = await owner.say(
        create(),
        stamped(encode_command(create()), other),
        stamped(encode_command(create()), token("admin", life_s=-60.0)),
        stamped(encode_command(create()), "no token"),
    )
    assert said == []
    assert await owner.events() == []
    found = await letters(owner)
    assert [reason.partition(":")[0] for reason, _, _ in found] == ["UNAUTHENTICATED"] * 4
    assert all(tenant is None for _, _, tenant in found), "nobody's: nobody said so for sure"


async def test_no_token_is_kept_anywhere(owner):
    """Not in events, not in letters, not in what is told."""
    good, weak = token("admin"), token("viewer")
    expired = token("admin", life_s=-60.0)
    shown = {"u": good, "v": weak, "w": expired}
    raws = [stamped(encode_command(create(name)), one) for name, one in shown.items()]
    decided = await owner.decide(*raws)
    await owner.commit(decided)
    kept = [*decided.share.messages, *(raw for _, raw in decided.replies)]
    kept += [raw for _, raw, _ in await letters(owner)]
    assert len(kept) == 5
    everything = b"".join(kept)
    assert not any(one.encode() in everything for one in (good, weak, expired))


async def test_what_may_not_be_is_refused_and_in_the_audit_trail(owner):
    [outcome] = await owner.say(by(create(), "viewer"))
    assert outcome.problem
    assert outcome.problem["code"] == "FORBIDDEN"
    [event] = await owner.events()
    assert (event.type, event.tenant, event.actor) == (REFUSAL, "acme", "ann")
    assert event.data["command_type"] == "CreateWorkflow"


async def test_a_refused_attempt_given_again_is_one_attempt(owner):
    raw = by(create(), "viewer")
    [first] = await owner.say(raw)
    [second] = await owner.say(raw)
    assert (first.problem, second.repeated) == (second.problem, True)
    assert len(await owner.events()) == 1


async def test_events_say_who_the_token_says(owner):
    command = create().but(actor="somebody else")
    [outcome] = await owner.say(by(command, "designer"))
    assert outcome.problem is None
    [event] = await owner.events()
    assert (event.tenant, event.actor) == ("acme", "ann")


async def test_an_attempt_on_another_tenant_is_in_the_trail_of_whom_it_was_made_on(owner):
    """I14."""
    await owner.say(by(create(), "designer"))
    there = asking(commands.archive_workflow("w"))
    claimed = there.but(id=commands.new_id(), tenant="acme")
    for command in (there, claimed):
        [outcome] = await owner.say(by(command, "admin", tenant="evil", subject="eve"))
        assert outcome.problem
    refused = [event for event in await owner.events() if event.type == REFUSAL]
    assert [event.data["code"] for event in refused] == ["FOREIGN_TENANT", "FORBIDDEN"]
    for event in refused:
        assert (event.tenant, event.actor) == ("acme", "eve")
        assert event.data["command_tenant"] == "evil"
    assert (await owner.state("workflow/w"))[0] == 1


async def test_an_agent_answers_its_own_tasks_only(owner):
    """F36: not another agent's, not another role's, not another tenant's."""
    await owner.say(by(create(), "designer"))
    await owner.say(by(start(), "operator"))

    def answer(agent: str = "bot") -> Command:
        said = {"task": "a", "attempt": 1, "agent": agent}
        return asking(commands.command("execution", "e", "CompleteTask", said))

    mine = {"subject": "host", "agents": ["bot"]}
    attempts = [
        by(answer("other"), "agent", **mine),
        by(answer(), "agent", **mine, task_roles=["another role"]),
        by(answer(), "agent", **mine, tenant="evil"),
        by(answer(), "admin", "operator"),
        by(answer(), "agent", **mine, task_roles=[ROLE]),
    ]
    codes = []
    for raw in attempts:
        [outcome] = await owner.say(raw)
        codes.append(outcome.problem and outcome.problem["code"])
    assert codes == ["FORBIDDEN", "NOT_YOURS", "FOREIGN_TENANT", "FORBIDDEN", None]
    events = await owner.events()
    assert sum(event.type == REFUSAL for event in events) == 4
    assert [event.actor for event in events if event.type == "TaskCompleted"] == ["bot"]


async def test_a_key_that_was_published_meanwhile_is_looked_for_at_once():
    """Keys change without a pause: nothing becomes a dead letter for it."""
    newer = shared(b"a key that nobody knew a moment ago, 32 bytes")
    checked = tokens(ENGINE)

    class Published:
        asked = 0

        async def renewed(self) -> bool:
            self.asked += 1
            checked.keys.publish([newer])
            return True

    owner = Owner()
    published = Published()
    owner.admission = Admission(checked, published)
    await owner.take()
    [outcome] = await owner.say(by(create(), "admin", key=newer))
    assert outcome.problem is None
    assert published.asked == 1
    assert owner.log.dead_letters == {}


def test_the_secret_of_the_tests_is_not_in_any_token():
    assert SECRET.decode() not in token("admin")
