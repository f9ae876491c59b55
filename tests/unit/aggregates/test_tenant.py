"""Tenants: named, given newer keys, and erased once, by somebody and for a reason (R60)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from aggregates.decider import fold
from aggregates.problem import Refused
from aggregates.tenant import (
    TENANT,
    CreateTenant,
    EraseTenant,
    RotateTenantKey,
    Tenant,
    TenantCreated,
    TenantErased,
    TenantKeyRotated,
)
from tests.spec import NOW, after, given

CREATED, ROTATED = TenantCreated("ann", "Acme"), TenantKeyRotated("ann", 2, "yearly")
ERASED = TenantErased("bob", "the end")


def test_a_tenant_gets_a_name_and_another_one():
    after().when(CreateTenant("Acme", "ann")).then(CREATED)
    given(CREATED).when(CreateTenant("Acme", "bob")).then_nothing()
    given(CREATED).when(CreateTenant("Acme Ltd", "bob")).then(TenantCreated("bob", "Acme Ltd"))


def test_a_key_is_rotated_upwards_and_once():
    given(CREATED).when(RotateTenantKey(2, "yearly", "ann")).then(ROTATED)
    given(ROTATED).when(RotateTenantKey(2, "again", "bob")).then_nothing()
    given(ROTATED).when(RotateTenantKey(1, "back", "bob")).then_nothing()
    given().when(RotateTenantKey(0, "", "bob")).refused("INVALID_VALUE", "/version")


def test_an_erased_tenant_is_over():
    given(CREATED).when(EraseTenant("the end", "bob")).then(ERASED)
    given(ERASED).when(EraseTenant("again", "ann")).then_nothing()
    given(ERASED).when(CreateTenant("", "ann")).refused("TENANT_ERASED")
    given(ERASED).when(RotateTenantKey(3, "", "ann")).refused("TENANT_ERASED")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_an_erasure_has_a_reason(reason: str) -> None:
    given().when(EraseTenant(reason, "bob")).refused(
        "TOO_LARGE" if reason.strip() else "MISSING_FIELD", "/reason"
    )


@pytest.mark.parametrize("command", [CreateTenant("x"), RotateTenantKey(2), EraseTenant("x")])
def test_somebody_decides(command: Any) -> None:
    given().when(command).refused("MISSING_ACTOR")


@pytest.mark.parametrize("name", ["a/b", "", "a b", "x" * 65, "ü"])
def test_a_tenant_is_what_a_stream_can_be_named_by(name: str) -> None:
    with pytest.raises(Refused, match="INVALID_ID"):
        TENANT.decide(Tenant(name), CreateTenant("x", "ann"), NOW)


said = st.one_of(
    st.builds(CreateTenant, st.sampled_from(["", "a", "b"]), st.just("ann")),
    st.builds(RotateTenantKey, st.integers(1, 5), st.just(""), st.just("ann")),
    st.builds(EraseTenant, st.just("x"), st.just("bob")),
)


@generated(st.lists(said))
def test_what_is_decided_again_changes_nothing_and_a_dump_is_the_state(commands: list[Any]) -> None:
    """I4, I6: a command on the state that it made; a snapshot is the fold."""
    state, facts = TENANT.initial("acme"), []
    for command in commands:
        if state.erased and not isinstance(command, EraseTenant):
            with pytest.raises(Refused, match="TENANT_ERASED"):
                TENANT.decide(state, command, NOW)
            continue
        events = TENANT.decide(state, command, NOW)
        facts += events
        for event in events:
            state = TENANT.evolve(state, event)
        assert TENANT.decide(state, command, NOW) == []
    assert fold(TENANT, "acme", facts) == state
    assert TENANT.load("acme", TENANT.dump(state), None) == state
