"""R60: what one tenant may have; what is over it leaves nothing behind, and may come again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from processors import commands
from processors.access.admission import Admission
from processors.access.quotas import AGENTS, EXECUTIONS, LOOK_S, Limits, Quotas
from streams.codec import encode_command, stamped
from streams.log import LogUnavailable
from streams.message import Outcome
from tests.access import ENGINE, SHARED, tokens
from tests.access import token as signed
from tests.partitions import NOW, Owner, asking, create, start


@dataclass
class Models:
    """Read models that show what they are told to, and a clock."""

    now: float = 100.0
    shown: dict[str, dict[int, int]] = field(default_factory=dict)
    rows: list[tuple[str, str, int]] = field(default_factory=list)
    looks: int = 0
    away: bool = False

    def clock(self) -> float:
        return self.now

    async def look(self, tenants: Any) -> Any:
        if self.away:
            raise LogUnavailable("away")
        self.looks += 1
        return self.shown, self.rows


@pytest.fixture
def models() -> Models:
    return Models()


async def owner(models: Models, **limits: Any) -> Owner:
    mine = Owner()
    mine.quotas = Quotas(Limits(**limits), models.look, models.clock)
    await mine.take()
    await mine.say(create())
    return mine


def codes(outcomes: list[Outcome]) -> list[str]:
    return [one.problem["code"] if one.problem else "" for one in outcomes]


def register(agent_id: str, capacity: int = 1) -> Any:
    said = commands.register_agent(
        agent_id, name=agent_id, roles=["r"], capabilities=[], capacity=capacity
    )
    return asking(said)


async def test_executions_are_bounded_and_the_end_of_one_makes_room(models):
    mine = await owner(models, executions=2)
    assert codes(await mine.say(*(start(f"e{n}") for n in range(4)))) == [
        "",
        "",
        *["OVER_QUOTA"] * 2,
    ]
    before = await mine.events()
    refused = start("e2").but(id="again")
    assert codes(await mine.say(refused)) == ["OVER_QUOTA"]
    assert await mine.events() == before, "nothing of it is in the log"
    await mine.say(asking(commands.cancel_execution("e0", "room")))
    assert codes(await mine.say(refused)) == [""], "and the same command may be given again"


async def test_what_the_read_models_show_is_not_counted_twice(models):
    mine = await owner(models, executions=3)
    await mine.say(start("e0"))
    models.rows, models.shown = [(EXECUTIONS, "default", 2)], {EXECUTIONS: {0: 10**6}}
    models.now += LOOK_S
    await mine.say(start("e0"))  # has somebody look
    assert mine.quotas._looking is not None
    await mine.quotas._looking
    assert codes(await mine.say(start("e1"), start("e2"))) == ["", "OVER_QUOTA"]
    models.now += LOOK_S / 2
    await mine.say(start("e3"))
    assert models.looks == 2, "the first time, and once in LOOK_S"


async def test_nobody_is_let_in_uncounted(models):
    mine = await owner(models, executions=1)
    models.away = True
    mine.quotas._asked.clear()
    with pytest.raises(LogUnavailable):
        await mine.decide(start("e0"))
    models.away, models.rows = False, [(EXECUTIONS, "default", 1)]
    mine = await mine.take()
    assert codes(await mine.say(start("e0"))) == ["OVER_QUOTA"], "what runs already counts"


async def test_what_was_not_committed_does_not_count(models):
    mine = await owner(models, executions=1)
    await mine.decide(start("e0"))  # and never committed
    mine.quotas.forget(0, mine.part.cursor.position)
    await mine.take()
    assert codes(await mine.say(start("e1"))) == [""]


async def test_agents_are_bounded_and_a_known_one_may_say_more_of_itself(models):
    mine = await owner(models, agents=1)
    assert codes(await mine.say(register("a"), register("b"))) == ["", "OVER_QUOTA"]
    assert codes(await mine.say(register("a", 2), register("b", 2))) == ["", "OVER_QUOTA"]
    gone = asking(commands.deregister_agent("a", ""))
    assert codes(await mine.say(gone, register("b", 3), register("a", 3))) == ["", "", "OVER_QUOTA"]
    assert mine.quotas._counts[AGENTS, "default"] == 1


async def test_a_tenant_that_makes_too_many_events_begins_nothing_and_ends_what_it_has(models):
    mine = await owner(models, events_per_s=2.0)
    await mine.say(start("e0"))  # some events more than two
    assert codes(await mine.say(start("e1"))) == ["OVER_QUOTA"]
    assert codes(await mine.say(asking(commands.cancel_execution("e0", "")))) == [""]
    models.now += 60.0
    assert codes(await mine.say(start("e1").but(id="later"))) == [""]


async def test_who_asked_for_no_outcome_finds_a_dead_letter(models):
    mine = await owner(models, executions=1)
    await mine.say(start("e0"), commands.start_execution("w", execution_id="e1"))
    [letter] = mine.log.dead_letters.values()
    assert letter.reason.startswith("OVER_QUOTA")
    assert letter.subject == "execution/e1"


async def test_the_engine_is_not_asked_and_nobody_passes_for_it(models):
    """A causation, which an engine that asks for no tokens trusts, is nothing to one that does."""
    mine = Owner()
    mine.quotas = Quotas(Limits(executions=0), models.look, models.clock)
    await mine.take()
    await mine.say(create().but(tenant="acme"))
    caused = start("e0").but(tenant="acme", causation="some event")
    assert codes(await mine.say(caused)) == [""]
    mine.admission = Admission(tokens(SHARED, ENGINE))
    at = NOW.timestamp()
    forged = start("e1").but(tenant="acme", causation="some event")
    said = await mine.say(stamped(encode_command(forged), signed("operator", now=at)))
    assert codes(said) == ["OVER_QUOTA"]
    engines = signed("engine", tenant="*", key=ENGINE, now=at)
    assert codes(await mine.say(stamped(encode_command(forged.but(id="x")), engines))) == [""]
