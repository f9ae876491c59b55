"""Payloads at the agents' side: what a task brings is opened, what its agent says is sealed.

Without keys nothing is sealed, and what arrives sealed cannot be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import structlog

from processors.agents.answers import TaskError
from processors.agents.wire import Assignment
from processors.sealing import DEFINED_INPUT
from streams.log import LogUnavailable
from streams.sealing.keyring import Keyring
from streams.sealing.sealer import WRONG_KEY, Sealer, Unopenable
from streams.sealing.token import is_sealed

RETRY_S = 0.5  # while the keys' database does not answer

logger = structlog.get_logger(__name__)


class Envelopes:
    """Opens and seals for one host, with the keys of its agents' tenants."""

    def __init__(self, keys: Keyring | None, tenants: Iterable[str]) -> None:
        self._keys = keys
        self._tenants = frozenset(tenants)
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Have the keys at hand, and keep them fresh, until cancelled."""
        while self._keys is not None:
            try:
                await self._keys.hold(self._tenants)
                break
            except LogUnavailable as error:
                logger.warning("keys_not_read", error=str(error)[:200])
                await asyncio.sleep(RETRY_S)
        self._ready.set()
        if self._keys is None:
            await asyncio.Event().wait()
        else:
            await self._keys.run()

    async def ready(self, then: Callable[[], Awaitable[None]]) -> None:
        """Begin with something when the keys are there."""
        await self._ready.wait()
        await then()

    def sealer(self, assignment: Assignment) -> Sealer | None:
        """What the answer is sealed with; None where sealing is off. Raises TaskError."""
        if self._keys is None:
            return None
        sealer = self._keys.held(assignment.tenant)
        if sealer is None:
            raise _unable(self._keys.why_not(assignment.tenant))
        return sealer

    def opened(self, assignment: Assignment) -> Assignment:
        """The task in clear; raises TaskError where that cannot be."""
        values = (assignment.input, assignment.answer, assignment.signal, assignment.output)
        if not any(map(is_sealed, values)):
            return assignment
        sealer = self.sealer(assignment)
        if sealer is None:
            raise _unable(Unopenable(WRONG_KEY, "The task is sealed, and this host has no keys."))
        here = f"execution/{assignment.execution_id}"
        given = (here, "input")
        if assignment.workflow is not None:
            given = (f"workflow/{assignment.workflow}", DEFINED_INPUT)
        open_ = sealer.open_value
        try:
            return replace(
                assignment,
                input=open_(assignment.input, *given),
                answer=open_(assignment.answer, here, "answer"),
                signal=open_(assignment.signal, here, "signal"),
                output=open_(assignment.output, here, "output"),
            )
        except Unopenable as error:
            raise _unable(error) from None


def _unable(error: Unopenable) -> TaskError:
    """A key may come; a payload that was erased or changed does not come back."""
    return TaskError(str(error), retryable=error.code == WRONG_KEY)
