"""On whose behalf something is asked: a tenant, a name, roles, and for how long that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from aggregates.problem import Refused

ANY_TENANT = "*"
"""The tenant of whoever runs the whole engine, and of the engine itself."""


class Role(StrEnum):
    """What a principal is there for; one principal may have several."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    DESIGNER = "designer"
    ADMIN = "admin"
    AGENT = "agent"
    ENGINE = "engine"


class Unauthenticated(Refused):
    """Nobody knows who asks: there is no valid token."""

    def __init__(self, detail: str) -> None:
        super().__init__("UNAUTHENTICATED", detail)


class Forbidden(Refused):
    """It is known who asks, and that this may not be asked by them."""

    def __init__(self, detail: str, pointer: str | None = None) -> None:
        super().__init__("FORBIDDEN", detail, pointer)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks; made from a token's claims, or from the settings where there are no tokens.

    `expires` is in seconds since 1970. `agents` are the ids that an agent's token may speak for,
    `agents_with` how ids begin that it may speak for as well; `task_roles` the roles whose tasks
    it may answer, None for any role.
    """

    tenant: str
    subject: str
    roles: frozenset[Role]
    expires: float = inf
    agents: frozenset[str] = frozenset()
    agents_with: tuple[str, ...] = ()
    task_roles: frozenset[str] | None = None
    commands: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False, compare=False)
    """Every (aggregate, command) that the roles allow; see `roles.granted`."""

    is_engine: bool = field(init=False, repr=False, compare=False)
    is_agent: bool = field(init=False, repr=False, compare=False)
    """Both are asked for every command, and an enum's hash is computed in Python."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_engine", Role.ENGINE in self.roles)
        object.__setattr__(self, "is_agent", Role.AGENT in self.roles)

    def is_of(self, tenant: str) -> bool:
        """Whether what belongs to this tenant is this principal's business."""
        return self.tenant in (tenant, ANY_TENANT)

    def speaks_for(self, agent: str) -> bool:
        """Whether a message may come from this agent."""
        return agent in self.agents or agent.startswith(self.agents_with)
