"""Makes agents known to the engine, each with its A2A card; and runs them until cancelled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from socket import gethostname
from typing import Any

import structlog
from uuid_utils import uuid7

from processors.access.own import Shown, nothing
from processors.agents.agent import Agent
from processors.agents.claims import LEASE_S
from processors.agents.host import AgentHost
from processors.agents.wire import BINDING, EXTENSION
from processors.keys import exported_keyring
from streams.bus import Bus, BusUnavailable
from streams.codec import encode_command, stamped
from streams.message import Command
from streams.partition import COMMANDS_INBOX, commands_key, partition_of, tasks_key
from streams.sealing.keyring import Keyring

logger = structlog.get_logger(__name__)

RETRY_S = 1.0
PROTOCOL_VERSION = "1.0"
AGENT_VERSION = "1"
JSON = "application/json"


def card(agent: Agent) -> dict[str, Any]:
    """The A2A v1.0 agent card: one skill and one task stream per role."""
    return {
        "name": agent.agent_id,
        "description": agent.description or f"Does tasks as {', '.join(agent.roles[:3])}.",
        "version": AGENT_VERSION,
        "supportedInterfaces": [
            {
                "url": f"redis-streams:{tasks_key(agent.tenant, role)}",
                "protocolBinding": BINDING,
                "protocolVersion": PROTOCOL_VERSION,
                "tenant": agent.tenant,
            }
            for role in agent.roles
        ],
        "capabilities": {
            "streaming": False,
            "pushNotifications": False,
            "extensions": [{"uri": EXTENSION, "required": True}],
        },
        "defaultInputModes": [JSON],
        "defaultOutputModes": [JSON],
        "skills": [
            {"id": role, "name": role, "description": f"Tasks of the role {role}.", "tags": [role]}
            for role in agent.roles
        ],
    }


async def register(
    bus: Bus, agents: Iterable[Agent], partitions: int | None = None, token: Shown = nothing
) -> None:
    """Publish a RegisterAgent for each; to the inbox where the number of partitions is unknown."""
    commands: dict[str, list[bytes]] = {}
    for agent in agents:
        data = {
            "name": agent.agent_id,
            "roles": list(agent.roles),
            "capabilities": list(agent.capabilities),
            "capacity": agent.capacity,
            "card": card(agent),
            "cost": agent.cost,
            "region": agent.region or None,
        }
        command = Command(
            id=str(uuid7()),
            type="RegisterAgent",
            aggregate="agent",
            root=agent.agent_id,
            data=data,
            tenant=agent.tenant,
            actor=agent.agent_id,
        )
        key = COMMANDS_INBOX
        if partitions is not None:
            key = commands_key(partition_of(agent.agent_id, partitions))
        commands.setdefault(key, []).append(stamped(encode_command(command), token()))
    await bus.append(commands)


async def run_agents(
    url: str,
    agents: Iterable[Agent],
    *,
    name: str | None = None,
    partitions: int | None = None,
    lease_s: float = LEASE_S,
    keys: Keyring | None = None,
    token: Shown = nothing,
) -> None:
    """Register agents and run them until cancelled; `name` tells hosts on one machine apart.

    Without `keys`, those in ORCHESTRATOR_TENANT_KEYS open and seal payloads. `token` returns what
    they show where the engine asks for tokens.
    """
    known = keys or exported_keyring(os.environ.get("ORCHESTRATOR_TENANT_KEYS"))
    named = name or gethostname()
    async with AgentHost(url, agents, name=named, lease_s=lease_s, keys=known, token=token) as host:
        while True:
            try:
                await register(host.bus, host.agents, partitions, token)
                break
            except BusUnavailable as error:
                logger.warning("agents_not_registered", host=host.name, error=str(error))
                await asyncio.sleep(RETRY_S)
        await host.ended()
