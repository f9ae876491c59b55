"""What the engine lets in: a command's token becomes its tenant and its actor, or it is refused.

This is the one place where commands are allowed or not, since a command may come from any XADD.
The gateway asks the same table of roles only to say no sooner.
"""

from __future__ import annotations

from typing import Any

from aggregates.plan import Plan
from aggregates.problem import Refused
from processors.access.keys import Keyring
from processors.access.principal import ANY_TENANT, Forbidden, Principal, Role, Unauthenticated
from processors.access.published import PublishedKeys, reader
from processors.access.roles import COMMANDS, forbidden
from processors.access.settings import AccessSettings
from processors.access.tokens import Tokens, UnknownKey
from streams.message import DEFAULT_TENANT, Command

ANSWERS = frozenset(
    {
        "StartTask",
        "CompleteTask",
        "FailTask",
        "RequestInput",
        "CompleteCompensation",
        "FailCompensation",
    }
)
"""What agents say about tasks; `data.agent` says who."""


BEYOND = frozenset({Role.OPERATOR, Role.ADMIN})
"""Roles that may speak of agents that are not their own."""


class Admission:
    """Admits commands by their tokens; raises Unauthenticated, and says what is forbidden."""

    def __init__(self, tokens: Tokens, published: PublishedKeys | None = None) -> None:
        self._principal = tokens.principal
        self._known = tokens.known
        self._published = published
        self._missed = False
        self.by_engine = False
        """Whether what was admitted last was the engine's own."""

    async def start(self) -> None:
        """Get the keys that somebody publishes; raises BadKey."""
        if self._published is not None:
            await self._published.start()

    async def stop(self) -> None:
        """Look for keys no more."""
        if self._published is not None:
            await self._published.stop()

    async def renewed(self) -> bool:
        """Whether commands were not admitted for a key that is known by now: admit them again."""
        missed, self._missed = self._missed, False
        return missed and self._published is not None and await self._published.renewed()

    def admit(self, command: Command, now: float) -> Refused | None:
        """Give the command its principal's tenant and actor; what is returned refuses it.

        `now` is in seconds since 1970. Raises Unauthenticated where there is no valid token: then
        nothing may be recorded under any tenant's name.
        """
        token = command.token
        if token is None:
            raise Unauthenticated(
                "The command carries no token; put one into its envelope as `token`."
            )
        principal = self._known.get(token)
        if principal is None or now >= principal.expires:
            try:
                principal = self._principal(token, now)
            except UnknownKey:
                self._missed = True
                raise
        command.token = None
        self.by_engine = principal.is_engine
        if command.tenant != principal.tenant != ANY_TENANT:
            said, command.tenant = command.tenant, principal.tenant
            if said != DEFAULT_TENANT:  # which is also what nothing said is read as
                command.actor = principal.subject
                return Forbidden(f"The token is for the tenant {principal.tenant}, not {said}.")
        if principal.is_engine:
            return None  # and the actor is what it says: which manager, or whose decision
        command.actor = principal.subject
        key = (command.aggregate, command.type)
        if key not in principal.commands:
            if command.type in COMMANDS.get(command.aggregate, ()):
                return forbidden(principal, *key)
            return None  # there is no such command, and that is what will be said
        if principal.is_agent:
            return _as_agent(principal, command)
        return None


def tokens_of(settings: AccessSettings) -> tuple[Tokens, PublishedKeys | None]:
    """The check of tokens that the settings ask for; raises BadKey."""
    tokens = Tokens(Keyring([*settings.shared_keys(), *settings.engine_keys()]), settings.expected)
    if settings.auth_jwks is None:
        return tokens, None
    return tokens, PublishedKeys(tokens, reader(settings.auth_jwks))


def admission(settings: AccessSettings) -> Admission | None:
    """What a command processor asks; None where every command is admitted as it is."""
    return None if settings.auth == "none" else Admission(*tokens_of(settings))


def _as_agent(principal: Principal, command: Command) -> Refused | None:
    """An agent speaks for itself and for its tasks only; who has other roles too, beyond that."""
    name, roles = principal.subject, principal.task_roles
    if command.type in ANSWERS:
        agent = command.data.get("agent")
        if isinstance(agent, str):  # what is none, the vocabulary refuses
            if not principal.speaks_for(agent):
                return Forbidden(f"{name} does not speak for the agent {agent!r}.", "/agent")
            command.actor = agent
        command.task_roles = roles
        return None
    if command.aggregate != "agent" or not principal.roles.isdisjoint(BEYOND):
        return None
    if not principal.speaks_for(command.root):
        return Forbidden(f"{name} does not speak for the agent {command.root!r}.")
    served = command.data.get("roles")
    if roles is not None and isinstance(served, list):
        for role in served:
            if role not in roles:
                return Forbidden(f"{name} does no tasks of the role {role!r}.", "/roles")
    return None


def not_theirs(state: Any, said: Any, roles: frozenset[str]) -> Refused | None:
    """Why whoever does tasks of these roles may not answer this one; None where they may.

    What is not there, the decision itself refuses.
    """
    plan: Plan | None = getattr(state, "plan", None)
    task = None if plan is None else plan.index.get(said.task)
    if plan is None or task is None:
        return None
    if type(said).__name__.endswith("Compensation"):
        role = plan.undoing[task][0] if task in plan.undoing else None
    else:
        role = plan.roles[plan.role[task]]
    if role is None or role in roles:
        return None
    detail = f"The task {said.task!r} is for the role {role!r}; this token answers for others."
    return Refused("NOT_YOURS", detail, "/task")
