"""The routes, one file a resource; a new one is one new file and one line here."""

from fastapi import APIRouter

from processors.access.roles import Read
from processors.api.routes.agents import router as agents
from processors.api.routes.audit import router as audit
from processors.api.routes.dead_letters import router as dead_letters
from processors.api.routes.executions import router as executions
from processors.api.routes.health import router as health
from processors.api.routes.history import router as history
from processors.api.routes.outcomes import router as outcomes
from processors.api.routes.projections import router as projections
from processors.api.routes.steering import router as steering
from processors.api.routes.tenants import router as tenants
from processors.api.routes.workflows import router as workflows
from processors.api.routes.workflows import validating
from processors.api.sockets import router as sockets

ROUTERS: tuple[tuple[APIRouter, Read | None], ...] = (
    (workflows, Read.WORKFLOWS),
    (validating, Read.WORKFLOWS),
    (executions, Read.EXECUTIONS),
    (history, Read.EVENTS),
    (steering, Read.EXECUTIONS),
    (agents, Read.AGENTS),
    (dead_letters, Read.DEAD_LETTERS),
    (audit, Read.AUDIT),
    (tenants, Read.TENANTS),
    (projections, Read.ENGINE),
    (outcomes, Read.EXECUTIONS),
    (health, None),
    (sockets, None),
)
"""With what whoever uses it must be allowed to read; None is for everybody, or asks by itself."""
