"""Who is there: judged by beats that change, on our own clock."""

from __future__ import annotations

import pytest

from processors.allocation.candidate import Candidate
from processors.allocation.cards import read_cards, read_word
from processors.allocation.directory import FORGET_S, LOST_S, SILENT_S, STALE_S
from streams.bus import BusUnavailable
from streams.partition import HOSTS, HOSTS_CARDS
from tests.unit.allocation.world import World


def serving(world: World, role: str = "r") -> dict[str, bool]:
    """The agents of a role, and whether each could get work."""
    return {
        one.agent: not (one.silent or one.lost) for one in world.directory.serving("default", role)
    }


async def test_who_was_there_before_us_is_believed_when_its_beat_changes() -> None:
    """F27: an entry may be of a host that died long ago."""
    world = World()
    world.host("h", {"id": "a"})
    await world.directory.refresh()
    assert serving(world) == {"a": False}
    world.beat("h")
    await world.directory.refresh()
    assert serving(world) == {"a": True}


async def test_who_comes_later_is_believed_at_once() -> None:
    world = World()
    await world.directory.refresh()
    world.host("h", {"id": "a"}, {"id": "b", "roles": ["s"]})
    await world.directory.refresh()
    assert (serving(world), serving(world, "s")) == ({"a": True}, {"b": True})
    assert world.directory.serving("acme", "r") == []


async def test_a_silent_host_gets_nothing_new_and_is_lost_later() -> None:
    """R30."""
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    await world.pass_(SILENT_S - 1)
    assert serving(world) == {"a": True}
    await world.pass_(1)
    assert serving(world) == {"a": False}
    assert not world.directory.agents["a"].lost
    await world.pass_(LOST_S - SILENT_S)
    assert world.directory.agents["a"].lost
    await world.pass_(1, "h")
    assert serving(world) == {"a": True}


async def test_a_host_that_shows_itself_seldom_is_given_more_time() -> None:
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.beat("h", every_s=5.0)
    await world.pass_(12)
    assert serving(world) == {"a": True}


async def test_nobody_grows_silent_while_redis_does_not_answer() -> None:
    """F12: a long absence of Redis is nobody's death."""
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.bus.away = True
    for _ in range(60):
        world.now += 1.0
        with pytest.raises(BusUnavailable):
            await world.directory.refresh()
    assert world.directory.serving("default", "r") == [], "the picture is too old"
    world.bus.away = False
    await world.directory.refresh()
    assert not world.directory.agents["a"].lost
    await world.pass_(1, "h")
    assert serving(world) == {"a": True}


async def test_an_old_picture_is_not_chosen_from() -> None:
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.now += STALE_S
    assert serving(world) == {"a": True}
    world.now += 0.1
    assert serving(world) == {}


async def test_a_restart_with_other_agents_is_seen() -> None:
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.host("h", {"id": "b"})
    await world.directory.refresh()
    assert serving(world) == {"b": True}


async def test_everything_comes_back_after_a_loss_of_redis() -> None:
    """F12."""
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.bus.flush()
    await world.pass_(1)
    assert serving(world) == {"a": False}
    world.host("h", {"id": "a"})
    await world.pass_(1)
    assert serving(world) == {"a": True}


async def test_a_host_that_stopped_in_order_is_forgotten_in_the_end() -> None:
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.leave("h")
    await world.pass_(FORGET_S + 1)
    assert (world.directory.hosts, serving(world)) == ({}, {})


async def test_a_stopping_host_gets_nothing_new() -> None:
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.beat("h", draining=True)
    await world.directory.refresh()
    assert world.directory.agents["a"].status == "draining"


async def test_what_the_engine_says_of_an_agent_is_known() -> None:
    """R30: and is not forgotten while Postgres does not answer."""
    world = World()
    world.host("h", {"id": "a"})
    world.registered("a", circuit="open", reason="why")
    await world.seen("h")
    world.away = True
    await world.directory.refresh()
    one = world.directory.agents["a"]
    assert (one.circuit, one.reason, world.directory.circuit("a")) == ("open", "why", "open")
    world.away = False
    world.registered("a", circuit="closed")
    await world.directory.refresh()
    assert (one.circuit, world.directory.circuit("a")) == ("closed", "closed")


async def test_what_others_gave_an_agent_counts_and_what_we_gave_counts_once() -> None:
    """R12."""
    world = World()
    world.host("h", {"id": "a", "capacity": 9})
    await world.seen("h")
    one = world.directory.agents["a"]
    world.beat("h", running={"a": 5})
    await world.directory.refresh()
    assert (one.others, one.load) == (5, 5)
    one.own = one.peak = 3
    await world.directory.refresh()
    assert (one.others, one.load) == (2, 5)
    one.own = 0  # they have ended since, and the host's word is older than that
    world.beat("h", running={"a": 3})
    await world.directory.refresh()
    assert one.load == 0


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense", b"[]", b"7", b'{"beat": "x"}', b'{"beat": 1, "running": [1]}', b"{}"]
)
async def test_a_bad_word_costs_nobody_else(raw: bytes) -> None:
    """F32."""
    assert read_word(raw) is None
    world = World()
    world.host("h", {"id": "a"})
    await world.seen("h")
    world.bus.hashes[HOSTS][b"bad\xff"] = raw
    await world.directory.refresh()
    assert serving(world) == {"a": True}


@pytest.mark.parametrize("raw", [b"", b"{", b"7", b'[{"id": "a"}]', b'[{"id": "a", "roles": 3}]'])
async def test_bad_cards_cost_nobody_else(raw: bytes) -> None:
    """F32."""
    assert read_cards("h", raw) is None
    world = World()
    world.host("h", {"id": "a"})
    world.host("bad", {"id": "b"})
    world.bus.hashes[HOSTS_CARDS][b"bad"] = raw
    await world.seen("h", "bad")
    assert serving(world) == {"a": True}


async def test_agents_that_do_nothing_are_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look costs by what has changed, not by how many agents wait."""
    world = World()
    world.host("h", *({"id": f"a{number}"} for number in range(100)))
    await world.seen("h")
    judged: list[str] = []
    judge = Candidate.judge

    def noted(one: Candidate) -> None:
        judged.append(one.agent)
        judge(one)

    monkeypatch.setattr(Candidate, "judge", noted)
    await world.pass_(3, "h")
    assert judged == []
    world.registered("a7", status="suspended")
    world.beat("h", running={"a9": 1})
    await world.directory.refresh()
    assert sorted(judged) == ["a7", "a9"]
    assert world.directory.agents["a7"].barred == "suspended"
    assert world.directory.agents["a9"].others == 1
    world.registered("a7", status="active")
    await world.pass_(1, "h")
    assert world.directory.agents["a7"].barred is None
    assert world.directory.agents["a9"].others == 0
    judged.clear()
    await world.pass_(2, "h")
    assert judged == []


async def test_whoever_is_silent_alone_changes_all_of_its_host() -> None:
    world = World()
    world.host("h", {"id": "a"}, {"id": "b"})
    world.host("i", {"id": "c"})
    await world.seen("h", "i")
    await world.pass_(SILENT_S + 1, "i")
    assert serving(world) == {"a": False, "b": False, "c": True}
