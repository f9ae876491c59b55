"""When something is away or too much: what that looks like from here, and the answers to it."""

from __future__ import annotations

import asyncpg

from processors.api.problems import Problem

RETRY_AFTER_S = 1
FULL_RETRY_AFTER_S = 5  # Redis has to be emptied by what is under way

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)
"""What a PostgreSQL that is away, full or too slow looks like; any other error is ours."""


def busy(what: str) -> Problem:
    """Too much at once: 429, and when to come back."""
    return Problem("BUSY", f"{what}; try again.", headers={"Retry-After": str(RETRY_AFTER_S)})


def full() -> Problem:
    """The engine takes nothing in: 429, and when to come back."""
    detail = "The engine is nearly full and takes nothing in at the moment; try again later."
    return Problem("ENGINE_FULL", detail, headers={"Retry-After": str(FULL_RETRY_AFTER_S)})


def unavailable(what: str) -> Problem:
    """A server is away: 503, and when to come back."""
    detail = f"{what} cannot be reached at the moment; try again."
    return Problem("UNAVAILABLE", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
