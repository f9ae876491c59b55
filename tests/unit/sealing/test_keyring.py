"""Keys in memory are fresh, or are not used: what is erased is forgotten everywhere (R60)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from streams.log import LogUnavailable
from streams.message import DEFAULT_TENANT
from streams.sealing.keyring import FRESH_S, KEEP_S, TENANTS_MAX, Keyring
from streams.sealing.kms import BadKey, new_key
from streams.sealing.sealer import WRONG_KEY, Unopenable
from streams.sealing.store import export, parse

HERE = "execution/1"


class Keys:
    """The table, in memory; it can be away."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[int, bytes] | None] = {}
        self.foreign: set[str] = set()
        self.away = False
        self.reads = 0
        self.seals: dict[tuple[str, int], int] = {}

    async def load(self, tenants: Iterable[str]) -> dict[str, dict[int, bytes] | None]:
        self.reads += 1
        if self.away:
            raise LogUnavailable("away")
        tenants = list(tenants)
        if self.foreign & set(tenants):
            raise Unopenable(WRONG_KEY)
        return {tenant: self.kept[tenant] for tenant in tenants if tenant in self.kept}

    async def create(self, tenant: str, version: int = 1) -> None:
        versions = self.kept.setdefault(tenant, {})
        if versions is not None:
            versions.setdefault(version, new_key())

    async def count(self, seals: Mapping[tuple[str, int], int]) -> None:
        for name, number in seals.items():
            self.seals[name] = self.seals.get(name, 0) + number


class World:
    """A table, a ring and a clock."""

    def __init__(self) -> None:
        self.keys, self.now = Keys(), 0.0
        self.ring = Keyring(self.keys, lambda: self.now)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_new_tenant_gets_a_key_and_it_is_read_once(world: World) -> None:
    first = await world.ring.sealer("acme")
    for _ in range(3):
        assert await world.ring.sealer("acme") is first
    assert world.keys.reads == 2, "looked, and looked again when it was made"
    assert (await Keyring(world.keys).sealer("acme")).open(first.seal(b"x", HERE, "input"), HERE)


async def test_who_only_reads_makes_no_keys(world: World) -> None:
    with pytest.raises(Unopenable, match="no key of the tenant 'acme'"):
        await world.ring.sealer("acme", create=False)
    assert world.keys.kept == {}


async def test_a_rotated_key_is_used_when_it_is_read_again(world: World) -> None:
    await world.ring.sealer("acme")
    await world.keys.create("acme", 2)
    world.now = FRESH_S + 1
    assert (await world.ring.sealer("acme")).version == 2


async def test_an_erased_tenant_is_forgotten_within_the_bound(world: World) -> None:
    """Where the table can be read, when it is read next; where not, when the key is too old."""
    await world.ring.sealer("acme")
    world.keys.kept["acme"] = None
    world.now = FRESH_S + 1
    with pytest.raises(Unopenable, match="ERASED"):
        await world.ring.sealer("acme")
    assert world.ring.held("acme") is None
    with pytest.raises(Unopenable, match="ERASED"):
        await Keyring(world.keys).sealer("acme")


async def test_without_its_table_a_key_is_used_for_a_while_and_no_longer(world: World) -> None:
    await world.ring.sealer("acme")
    world.keys.away = True
    world.now = KEEP_S - 1
    await world.ring.refresh()
    assert world.ring.held("acme") is not None
    world.now = KEEP_S + 1
    assert world.ring.held("acme") is None
    await world.ring.refresh()
    assert not world.ring._held, "it is not even in memory"
    with pytest.raises(LogUnavailable):
        await world.ring.sealer("acme")


async def test_one_tenants_broken_key_is_its_own_trouble(world: World) -> None:
    world.keys.foreign = {"broken"}
    await world.ring.hold(["acme", "broken", "other"])
    assert world.ring.held("acme")
    assert world.ring.held("other")
    assert world.ring.held("broken") is None
    assert world.ring.why_not("broken").code == WRONG_KEY


async def test_what_is_nobodys_is_the_default_tenants(world: World) -> None:
    """Nobody makes up tenants with poison."""
    assert (await world.ring.any_sealer("made-up")).tenant == DEFAULT_TENANT
    assert (await world.ring.any_sealer(None)).tenant == DEFAULT_TENANT
    await world.ring.sealer("acme")
    assert (await world.ring.any_sealer("acme")).tenant == "acme"
    assert set(world.keys.kept) == {DEFAULT_TENANT, "acme"}


async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.sealing.keyring.TENANTS_MAX", 3)
    assert TENANTS_MAX > 3
    for number in range(10):
        await world.ring.sealer(f"t{number}")
    assert list(world.ring._held) == ["t7", "t8", "t9"]


async def test_seals_are_counted_for_all_processes(world: World) -> None:
    """A key has 2^32 of them."""
    sealer = await world.ring.sealer("acme")
    for _ in range(5):
        sealer.seal(b"x", HERE, "input")
    world.now = FRESH_S + 1
    await world.ring.refresh()
    assert world.keys.seals == {("acme", 1): 5}


async def test_exported_keys_are_those_of_their_tenants() -> None:
    one, two, other = new_key(), new_key(), new_key()
    given = parse(f"{export('acme', {1: one, 2: two})},{export('b.c', {7: other})}")
    ring = Keyring(given)
    assert (await ring.sealer("acme")).versions == {1, 2}
    assert (await ring.sealer("b.c")).version == 7
    with pytest.raises(Unopenable):
        await ring.sealer("nobody")


@pytest.mark.parametrize("text", ["acme", "acme:1", "acme:x:AAAA", "acme:0:AAAA", ":1:AAAA"])
def test_what_is_no_export_is_named(text: str) -> None:
    with pytest.raises(BadKey, match="Key 1 is not"):
        parse(text)
