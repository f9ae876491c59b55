"""Why a task gets no agent, for somebody who has not been looking: two looks, and an answer."""

from __future__ import annotations

import asyncio

from processors.allocation.candidate import why_waiting
from processors.allocation.directory import Directory
from processors.allocation.need import Need
from processors.allocation.states import States
from streams.bus import Bus
from streams.message import DEFAULT_TENANT

PAUSE_S = 1.5  # in this time the beat of a host that lives has changed


async def look(bus: Bus, states: States, pause_s: float = PAUSE_S) -> Directory:
    """A fresh picture of all agents; raises BusUnavailable."""
    directory = Directory(bus, states, asyncio.get_running_loop().time)
    await directory.refresh()
    await asyncio.sleep(pause_s)
    await directory.refresh()
    return directory


def reason(directory: Directory, role: str, need: Need, tenant: str = DEFAULT_TENANT) -> str | None:
    """Why a task of this role waits, in one sentence; None where an agent could take it."""
    return why_waiting(role, directory.serving(tenant, role), need)
