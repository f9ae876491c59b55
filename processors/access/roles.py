"""The table of roles: who may give which command, and who may read what. Nothing else grants.

The engine itself may give every command. What has no row may be given by nobody else, and a test
fails for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from processors.access.principal import Forbidden, Principal, Role

VIEWER, OPERATOR, DESIGNER = Role.VIEWER, Role.OPERATOR, Role.DESIGNER
ADMIN, AGENT, ENGINE = Role.ADMIN, Role.AGENT, Role.ENGINE


class Read(StrEnum):
    """What can be read, as one decides about it."""

    WORKFLOWS = "workflows"
    EXECUTIONS = "executions"
    EVENTS = "events"
    PAYLOADS = "payloads"
    PATTERNS = "patterns"
    AGENTS = "agents"
    HOOKS = "hooks"
    DEAD_LETTERS = "dead_letters"
    AUDIT = "audit"
    TENANTS = "tenants"
    ENGINE = "engine"


_DESIGN = (DESIGNER, ADMIN)
_OPERATE = (OPERATOR, ADMIN)
_ADMINISTER = (ADMIN,)
_OWN_AGENT = (AGENT, OPERATOR, ADMIN)
_ANSWER = (AGENT,)
_ITSELF: tuple[Role, ...] = ()  # the engine only: timers, sagas, health

COMMANDS: dict[str, dict[str, tuple[Role, ...]]] = {
    "workflow": {
        "CreateWorkflow": _DESIGN,
        "ReviseWorkflow": _DESIGN,
        "ArchiveWorkflow": _DESIGN,
    },
    "execution": {
        "StartExecution": _OPERATE,
        "PauseExecution": _OPERATE,
        "ResumeExecution": _OPERATE,
        "CancelExecution": _OPERATE,
        "ProvideInput": _OPERATE,
        "SignalExecution": _OPERATE,
        "RetryExecution": _OPERATE,
        "RetryCompensation": _OPERATE,
        "StartTask": _ANSWER,
        "CompleteTask": _ANSWER,
        "FailTask": _ANSWER,
        "RequestInput": _ANSWER,
        "CompleteCompensation": _ANSWER,
        "FailCompensation": _ANSWER,
        "TimeOutTask": _ITSELF,
        "TimeOutExecution": _ITSELF,
        "TimeOutCompensation": _ITSELF,
        "CheckExecution": _ITSELF,
        "CompensateTask": _ITSELF,
        "EndCompensation": _ITSELF,
    },
    "agent": {
        "RegisterAgent": _OWN_AGENT,
        "DrainAgent": _OWN_AGENT,
        "DeregisterAgent": _OWN_AGENT,
        "OpenCircuit": _ITSELF,
        "HalfOpenCircuit": _ITSELF,
        "CloseCircuit": _ITSELF,
        "MarkAgentLost": _ITSELF,
        "MarkAgentReturned": _ITSELF,
    },
    "dead_letter": {
        "RetryDeadLetter": _OPERATE,
        "DiscardDeadLetter": _OPERATE,
    },
    "tenant": {
        "CreateTenant": _ADMINISTER,
        "RotateTenantKey": _ADMINISTER,
        "EraseTenant": _ADMINISTER,
    },
}
"""Who may give a command, beside the engine. Agents only for themselves: see `admission`."""

_PEOPLE = (VIEWER, OPERATOR, DESIGNER, ADMIN)

READS: dict[Read, tuple[Role, ...]] = {
    Read.WORKFLOWS: _PEOPLE,
    Read.EXECUTIONS: _PEOPLE,
    Read.EVENTS: _PEOPLE,
    Read.PATTERNS: _PEOPLE,
    Read.HOOKS: _PEOPLE,
    Read.AGENTS: (*_PEOPLE, AGENT),  # an agent sees who works with it, and nothing of the work
    Read.PAYLOADS: (OPERATOR, DESIGNER, ADMIN),
    Read.DEAD_LETTERS: _OPERATE,
    Read.ENGINE: _OPERATE,
    Read.AUDIT: (ADMIN,),
    Read.TENANTS: (ADMIN,),
}
"""Who may read what, always of their own tenant; the engine may read everything."""


def granted(roles: Iterable[Role]) -> frozenset[tuple[str, str]]:
    """Every (aggregate, command) that these roles may give."""
    mine = frozenset(roles)
    return frozenset(
        (aggregate, kind)
        for aggregate, kinds in COMMANDS.items()
        for kind, givers in kinds.items()
        if ENGINE in mine or mine.intersection(givers)
    )


def may_read(principal: Principal, kind: Read) -> bool:
    """Whether the principal's roles allow it, for what is of its tenant."""
    return ENGINE in principal.roles or not principal.roles.isdisjoint(READS[kind])


def check_read(principal: Principal, kind: Read) -> None:
    """Raises Forbidden, with who may."""
    if not may_read(principal, kind):
        raise Forbidden(
            f"{_name(principal)} may not read {kind.value.replace('_', ' ')};"
            f" {_named(READS[kind])} may."
        )


def forbidden(principal: Principal, aggregate: str, kind: str) -> Forbidden:
    """Why a principal may not give a command, and who may."""
    givers = COMMANDS.get(aggregate, {}).get(kind, ())
    who = f"{_named(givers)} may." if givers else "only the engine does that."
    return Forbidden(f"{_name(principal)} may not give {kind}; {who}")


def _name(principal: Principal) -> str:
    roles = ", ".join(sorted(principal.roles)) or "no role"
    return f"{principal.subject} ({roles})"


def _named(roles: Iterable[Role]) -> str:
    return " or ".join(roles)
