"""Tokens: JSON Web Tokens whose claims say who asks, and the check that they are what they say.

A token is checked once and remembered by its bytes until it expires, so that what comes with every
command costs a look-up. No error, log or repr ever shows one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jwt

from processors.access.keys import HS256, Key, Keyring
from processors.access.principal import ANY_TENANT, Principal, Role, Unauthenticated
from processors.access.roles import granted
from processors.access.settings import DEFAULT, Expected
from streams.codec import ID_BYTES_MAX, TENANT
from streams.message import TOKEN_CHARS_MAX

LEEWAY_S = 30.0  # by so much the clocks of whoever signs and whoever checks may differ
REMEMBERED_MAX = 10_000  # valid tokens
REFUSED_MAX = 1_000  # tokens that were refused: what is sent again and again is not checked again
LIFE_S_MAX = 366 * 86_400.0
NAMES_MAX = 1_000  # agents, or task roles, of one token
_ROLES = {role.value: role for role in Role}


class Passing(Unauthenticated):
    """Not valid now, and perhaps a moment later: not remembered as refused."""


class UnknownKey(Passing):
    """The token names a key that is not known; newer keys may have been published."""


class Tokens:
    """Checks tokens against the keys that are known; remembers what it has found."""

    def __init__(self, keys: Keyring, expected: Expected = DEFAULT) -> None:
        self.keys = keys
        self._expected = expected
        self.known: dict[str, Principal] = {}
        """By token; `expires` says until when."""
        self._refused: dict[str, str] = {}

    def principal(self, token: str, now: float) -> Principal:
        """Whose token it is at `now` (seconds since 1970); raises Unauthenticated."""
        known = self.known.get(token)
        if known is not None:
            if now < known.expires:
                return known
            del self.known[token]
        if (refused := self._refused.get(token)) is not None:
            raise Unauthenticated(refused)
        try:
            found = self._checked(token, now)
        except Passing:
            raise
        except Unauthenticated as error:
            _keep(self._refused, token, error.detail, REFUSED_MAX)
            raise
        _keep(self.known, token, found, REMEMBERED_MAX)
        return found

    def forget(self) -> None:
        """Check everything anew: the keys have changed."""
        self.known.clear()
        self._refused.clear()

    def _checked(self, token: str, now: float) -> Principal:
        if len(token) > TOKEN_CHARS_MAX:
            raise Unauthenticated(f"A token has at most {TOKEN_CHARS_MAX} characters.")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated("The token is no JSON Web Token.") from None
        kid = header.get("kid")
        keys = self.keys.candidates(str(header.get("alg")), kid if isinstance(kid, str) else None)
        if not keys:
            raise UnknownKey("The token names a key, or an algorithm, that is not accepted here.")
        for key in keys:
            try:
                claims = self._claims(token, key)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise Unauthenticated(f"The token is not valid: {_why(error)}.") from None
            return _principal(claims, key, now)
        raise Unauthenticated("The token was signed with another key.")

    def _claims(self, token: str, key: Key) -> dict[str, Any]:
        """Verified but for its times, which are asked again whenever it is shown."""
        found: dict[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            audience=self._expected.audience,
            issuer=self._expected.issuer,
            options={
                "require": ["exp", "sub", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        return found


def _keep(kept: dict[str, Any], token: str, found: Any, limit: int) -> None:
    if len(kept) >= limit:  # the oldest: dictionaries keep their order
        del kept[next(iter(kept))]
    kept[token] = found


def _why(error: Exception) -> str:
    """What is wrong, in words of ours: a library's may quote the token."""
    match error:
        case jwt.InvalidAudienceError():
            return "it is for another audience"
        case jwt.InvalidIssuerError():
            return "it comes from another issuer"
        case jwt.MissingRequiredClaimError():
            return f"the claim `{error.claim}` is missing"
    return "it cannot be decoded"


def _principal(claims: dict[str, Any], key: Key, now: float) -> Principal:
    expires = _time(claims, "exp", now) + LEEWAY_S
    if now >= expires:
        raise Unauthenticated("The token has expired; get a new one.")
    if "nbf" in claims and now < _time(claims, "nbf", now) - LEEWAY_S:
        raise Passing("The token is not valid yet; compare the clocks.")
    if "iat" in claims and now < _time(claims, "iat", now) - LEEWAY_S:
        raise Passing("The token was issued in the future; compare the clocks.")
    roles, tenant = _roles(claims, key), claims.get("tenant")
    if not isinstance(tenant, str) or not (TENANT.fullmatch(tenant) or tenant == ANY_TENANT):
        raise Unauthenticated("The token's claim `tenant` names no tenant.")
    if tenant == ANY_TENANT and roles.isdisjoint((Role.ADMIN, Role.ENGINE)):
        raise Unauthenticated("Only an admin's token may be for all tenants.")
    subject = claims["sub"]
    if not subject or len(subject) > ID_BYTES_MAX or not subject.isprintable():
        raise Unauthenticated(f"The token's claim `sub` is a text of 1 to {ID_BYTES_MAX} letters.")
    agents = _names(claims, "agents") or frozenset({subject} if Role.AGENT in roles else ())
    return Principal(
        tenant,
        subject,
        roles,
        expires,
        frozenset(name for name in agents if not name.endswith("*")),
        tuple(sorted(name[:-1] for name in agents if name.endswith("*"))),
        _names(claims, "task_roles"),
        granted(roles),
    )


def _time(claims: dict[str, Any], name: str, now: float) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unauthenticated(f"The token's claim `{name}` is no time.")
    if not abs(value - now) <= LIFE_S_MAX * 10:
        raise Unauthenticated(f"The token's claim `{name}` is no time of this decade.")
    return float(value)


def _roles(claims: dict[str, Any], key: Key) -> frozenset[Role]:
    """The roles that we know; what else an issuer gives out means nothing here."""
    said = claims.get("roles")
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise Unauthenticated("The token's claim `roles` is a list of texts.")
    roles = frozenset(_ROLES[one] for one in said if one in _ROLES)
    if not roles:
        raise Unauthenticated(f"The token has none of the roles {', '.join(Role)}.")
    if Role.ENGINE in roles and not key.engine:
        raise Unauthenticated("The role `engine` is the engine's own.")
    return roles


def _names(claims: dict[str, Any], name: str) -> frozenset[str] | None:
    said = claims.get(name)
    if said is None:
        return None
    if not isinstance(said, list) or not 0 < len(said) <= NAMES_MAX:
        raise Unauthenticated(f"The token's claim `{name}` is a list of 1 to {NAMES_MAX} texts.")
    if not all(isinstance(one, str) and 0 < len(one) <= ID_BYTES_MAX for one in said):
        raise Unauthenticated(f"The token's claim `{name}` holds texts of up to {ID_BYTES_MAX}.")
    return frozenset(said)


def sign(
    key: Key,
    *,
    subject: str,
    tenant: str,
    roles: Iterable[str],
    now: float,
    life_s: float,
    agents: Iterable[str] = (),
    task_roles: Iterable[str] = (),
    expected: Expected = DEFAULT,
) -> str:
    """A token of ours, with a shared key."""
    assert key.algorithm == HS256, "only shared keys sign here"
    claims: dict[str, Any] = {
        "iss": expected.issuer,
        "aud": expected.audience,
        "sub": subject,
        "tenant": tenant,
        "roles": sorted(roles),
        "iat": int(now),
        "exp": int(now + life_s),
    }
    if named := sorted(agents):
        claims["agents"] = named
    if named := sorted(task_roles):
        claims["task_roles"] = named
    return jwt.encode(claims, key.material, algorithm=HS256, headers={"kid": key.kid})
