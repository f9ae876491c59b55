"""The agents' side: what makes an agent out of one function, and speaks A2A over Redis Streams."""

from processors.agents.agent import Agent, Handler
from processors.agents.answers import NeedInput, TaskError
from processors.agents.host import AgentHost
from processors.agents.registration import card, register, run_agents
from processors.agents.simulated import Behaviour, simulated_agents
from processors.agents.wire import (
    BINDING,
    EXTENSION,
    Assignment,
    decode_assignment,
    encode_assignment,
)

__all__ = [
    "BINDING",
    "EXTENSION",
    "Agent",
    "AgentHost",
    "Assignment",
    "Behaviour",
    "Handler",
    "NeedInput",
    "TaskError",
    "card",
    "decode_assignment",
    "encode_assignment",
    "register",
    "run_agents",
    "simulated_agents",
]
