"""R60: a token says who asks, and nothing but a valid one does."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from processors.access.keys import SECRET_BYTES_MIN, from_jwks, shared
from processors.access.principal import Role, Unauthenticated
from processors.access.settings import BadKey
from processors.access.tokens import LEEWAY_S, REFUSED_MAX, REMEMBERED_MAX, UnknownKey
from tests.access import (
    ED,
    ENGINE,
    NOW,
    RSA,
    SECRET,
    SHARED,
    by_hand,
    claims,
    encoded,
    jwks,
    pem,
    token,
    tokens,
)


def refusal(raw: str, now: float = NOW, *keys) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens(*keys).principal(raw, now)
    assert caught.value.code == "UNAUTHENTICATED"
    assert raw[-20:] not in str(caught.value), "no error shows a token"
    return caught.value.detail


def test_a_token_says_who_asks():
    found = tokens().principal(token("operator", "viewer", agents=["a", "b/*"]), NOW)
    assert (found.tenant, found.subject) == ("acme", "ann")
    assert found.roles == {Role.OPERATOR, Role.VIEWER}
    assert found.speaks_for("a")
    assert found.speaks_for("b/1")
    assert not found.speaks_for("ab")
    assert ("execution", "StartExecution") in found.commands


def test_an_agent_without_a_list_speaks_for_itself():
    found = tokens().principal(token("agent", subject="bot"), NOW)
    assert found.speaks_for("bot")
    assert not found.speaks_for("bot2")


@pytest.mark.parametrize(("after", "valid"), [(0, True), (599, True), (629, True), (630, False)])
def test_it_expires_with_the_leeway_that_clocks_get(after, valid):
    """F: clock skew; also where it was valid before, and remembered."""
    checked, raw = tokens(), token("viewer", life_s=600.0)
    assert checked.principal(raw, NOW).expires == NOW + 600 + LEEWAY_S
    if valid:
        checked.principal(raw, NOW + after)
    else:
        with pytest.raises(Unauthenticated, match="expired"):
            checked.principal(raw, NOW + after)


def test_it_may_be_issued_by_a_clock_that_is_a_little_ahead():
    ahead = encoded(claims(iat=NOW + LEEWAY_S, nbf=NOW + LEEWAY_S))
    checked = tokens()
    assert checked.principal(ahead, NOW)
    far = encoded(claims(nbf=NOW + LEEWAY_S + 1))
    with pytest.raises(Unauthenticated, match="not valid yet"):
        checked.principal(far, NOW)
    assert checked.principal(far, NOW + 1), "and it is not held against it a moment later"
    assert "future" in refusal(encoded(claims(iat=NOW + LEEWAY_S + 1)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"aud": "others"}, "another audience"),
        ({"iss": "others"}, "another issuer"),
        ({"exp": None}, "`exp` is missing"),
        ({"sub": None}, "`sub` is missing"),
        ({"iss": None}, "`iss` is missing"),
        ({"aud": None}, "`aud` is missing"),
        ({"exp": "soon"}, "`exp` is no time"),
        ({"exp": True}, "`exp` is no time"),
        ({"exp": 1e400}, "`exp` is no time"),
        ({"tenant": None}, "`tenant`"),
        ({"tenant": "a:b"}, "`tenant`"),
        ({"tenant": ["acme"]}, "`tenant`"),
        ({"tenant": "*"}, "Only an admin's"),
        ({"roles": None}, "`roles`"),
        ({"roles": "admin"}, "`roles`"),
        ({"roles": ["root"]}, "none of the roles"),
        ({"roles": ["engine"]}, "the engine's own"),
        ({"sub": "x" * 201}, "`sub`"),
        ({"sub": "a\nb"}, "`sub`"),
        ({"agents": []}, "`agents`"),
        ({"agents": "a"}, "`agents`"),
        ({"task_roles": [1]}, "`task_roles`"),
    ],
)
def test_what_it_says_is_checked(changed, said):
    assert said in refusal(encoded(claims(**changed)))


@pytest.mark.parametrize("raw", ["", "x", "a.b.c", "...", "é.é.é", "a" * 9_000, "\0"])
def test_what_is_no_token_is_refused(raw):
    with pytest.raises(Unauthenticated):
        tokens().principal(raw, NOW)


def test_another_key_is_refused():
    assert "another key" in refusal(encoded(claims(), b"x" * 40))
    unknown = encoded(claims(), b"x" * 40, kid="other")
    with pytest.raises(UnknownKey):
        tokens().principal(unknown, NOW)


def test_nobody_signs_with_nothing():
    """The algorithm `none`, in every spelling, with and without the id of a key."""
    for name in ("none", "None", "NONE", ""):
        for kid in ({}, {"kid": SHARED.kid}):
            refusal(by_hand({"alg": name, "typ": "JWT", **kid}, claims()))
            refusal(by_hand({"alg": name, "typ": "JWT", **kid}, claims(), b"x"))


def test_a_public_key_is_no_shared_one():
    """Algorithm confusion: an HMAC over the token, made with the bytes of the public key."""
    keys = from_jwks(jwks(one=RSA, two=ED))
    for key in (RSA, ED):
        for secret in (pem(key), pem(key).strip()):
            header = {"alg": "HS256", "typ": "JWT", "kid": "one"}
            unsigned = by_hand(header, claims()).rstrip(".")
            signature = hmac.digest(secret, unsigned.encode(), sha256)
            refusal(by_hand(header, claims(), signature), NOW, *keys, SHARED)
    right = encoded(claims(), RSA, "RS256", kid="one")
    assert tokens(*keys).principal(right, NOW).subject == "ann"
    assert refusal(encoded(claims(), RSA, "RS256", kid="two"), NOW, *keys)
    assert refusal(encoded(claims(), RSA, "PS256", kid="one"), NOW, *keys)


def test_public_keys_of_both_kinds_are_used():
    keys = from_jwks(jwks(one=RSA, two=ED))
    checked = tokens(*keys)
    assert [(k.kid, k.algorithm) for k in keys] == [("one", "RS256"), ("two", "EdDSA")]
    assert checked.principal(encoded(claims(), ED, "EdDSA", kid="two"), NOW)
    assert checked.principal(encoded(claims(), ED, "EdDSA"), NOW), "also where it names no key"
    other = ed25519.Ed25519PrivateKey.generate()
    assert "another key" in refusal(encoded(claims(), other, "EdDSA", kid="two"), NOW, *keys)


def test_a_document_gives_what_can_be_used_and_nothing_else():
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
    assert [key.kid for key in from_jwks(jwks(weak=weak, good=ED))] == ["good"]
    for bad in (b"", b"[]", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}'):
        with pytest.raises(BadKey):
            from_jwks(bad)
    with pytest.raises(BadKey):
        from_jwks(jwks(weak=weak))


def test_a_short_secret_is_refused_and_not_repeated():
    with pytest.raises(BadKey) as caught:
        shared(b"short secret")
    assert "short secret" not in str(caught.value)
    assert str(SECRET_BYTES_MIN) in str(caught.value)
    assert "a shared key" not in repr(SHARED) + repr(tokens().keys)


def test_keys_are_replaced_without_a_pause():
    """The new one is accepted beside the old one, and the old one until it is taken away."""
    newer = shared(b"another shared key of the tests, 32 bytes")
    both = tokens(newer, SHARED)
    assert both.principal(token("viewer"), NOW)
    assert both.principal(token("viewer", key=newer), NOW)
    with pytest.raises(UnknownKey):
        tokens(newer).principal(token("viewer"), NOW)


def test_only_the_engines_own_key_speaks_for_the_engine():
    found = tokens().principal(token("engine", tenant="*", key=ENGINE), NOW)
    assert found.roles == {Role.ENGINE}
    assert ENGINE.kid != SHARED.kid
    assert "the engine's own" in refusal(encoded(claims(roles=["engine"]), SECRET))


def test_what_is_remembered_is_bounded():
    checked = tokens()
    for number in range(REFUSED_MAX + 10):
        with pytest.raises(Unauthenticated):
            checked.principal(f"x{number}", NOW)
    assert len(checked._refused) == REFUSED_MAX
    good = [token("viewer", subject=str(number)) for number in range(30)]
    checked.known = {f"other{n}": None for n in range(REMEMBERED_MAX)}
    for one in good:
        checked.principal(one, NOW)
    assert len(checked.known) == REMEMBERED_MAX
    assert checked.known[good[-1]].subject == "29"
