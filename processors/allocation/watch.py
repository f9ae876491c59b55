"""Watches over agents and hosts: says who is lost and who is back, and closes agents' gates.

Every worker that runs process managers has one. An agent is the business of whoever holds the
partition of its id, so that one worker speaks of it. What was said and is not in the read model
yet is said again after a while: a repeat changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from processors.agents.wire import encode_gate
from processors.allocation.candidate import HALF_OPEN, OPEN, Candidate
from processors.allocation.directory import Directory, Host
from processors.allocation.states import State, States
from processors.commands import new_id
from processors.managers.manager import Send
from processors.task_sender import TaskSender
from streams.bus import BusUnavailable
from streams.ending import end
from streams.log import LogUnavailable
from streams.message import Command
from streams.partition import gate_channel, partition_of, pushed_key

LOOK_S = 1.0
SAY_AGAIN_S = 10.0  # the read model has had the time to follow
SAID_MAX = 10_000

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Watch:
    """The loop that refreshes a process's directory, and does what follows from it."""

    directory: Directory
    states: States
    sender: TaskSender
    look_s: float = LOOK_S
    _said: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; a second call changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="watch over agents")

    async def stop(self) -> None:
        """Look no more."""
        await end(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except (BusUnavailable, LogUnavailable) as error:
                logger.warning("agents_out_of_sight", error=str(error))
            except Exception:  # a mistake in one look leaves the next one
                logger.exception("look_failed")
            await asyncio.sleep(self.look_s)

    async def look(self) -> None:
        """One look; raises BusUnavailable or LogUnavailable, and what is left comes at the next."""
        await self.directory.refresh()
        await self.sender.move_on()
        await self._gates()
        commands = [*await self._lost(), *self._returned()]
        if commands:
            await self.sender.send([Send(command) for command in commands])
        await self._forget()

    def _ours(self, root: str) -> bool:
        return self.sender.epoch_of(partition_of(root, self.sender.partitions)) is not None

    # Lost and returned --------------------------------------------------------------------------

    async def _lost(self) -> list[Command]:
        """Of the registered agents whose hosts have been silent for too long."""
        agents = self.directory.agents
        silent = {
            one.agent: one
            for host in self.directory.hosts.values()
            if host.lost
            for one in host.agents.values()
            if agents.get(one.agent) is one
            and self._ours(one.agent)
            and not self._is_lost(one.agent)
        }
        fresh = [agent for agent in silent if self._may_say("MarkAgentLost", agent)]
        if not fresh:
            return []
        known = await self.states.known(fresh)
        for agent in fresh:  # who was never registered is not asked after at every look
            self._note("MarkAgentLost", agent)
        return [self._say(known[a], "MarkAgentLost", silent[a]) for a in fresh if a in known]

    def _returned(self) -> list[Command]:
        """Of those that are said to be lost and whose hosts live."""
        found = []
        for agent, state in self.directory.kept.items():
            one = self.directory.agents.get(agent)
            if one is None or one.silent or not state.lost or not self._ours(agent):
                continue
            if self._may_say("MarkAgentReturned", agent):
                found.append(self._say(state, "MarkAgentReturned", one))
        return found

    def _is_lost(self, agent: str) -> bool:
        known = self.directory.kept.get(agent)
        return known is not None and known.lost

    def _may_say(self, kind: str, agent: str) -> bool:
        return self.directory.clock() >= self._said.get((kind, agent), 0.0)

    def _note(self, kind: str, agent: str) -> None:
        self._said.pop((kind, agent), None)
        self._said[kind, agent] = self.directory.clock() + SAY_AGAIN_S
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)

    def _say(self, state: State, kind: str, one: Candidate) -> Command:
        self._note(kind, state.agent)
        said = {}
        if kind == "MarkAgentLost":
            seconds = f"{self.directory.lost_s:g}"
            said = {"reason": f"Its host {one.host} gave no sign of life for {seconds} s."}
        return Command(new_id(), kind, "agent", state.agent, said, state.tenant, "health")

    # Gates --------------------------------------------------------------------------------------

    async def _gates(self) -> None:
        """Tell hosts which agents pull nothing: said until the host's own word agrees."""
        told: dict[str, list[bytes]] = defaultdict(list)
        for host in self.directory.hosts.values():
            if not host.alive:
                continue
            for one in self._limited(host):
                gate = _gate(one)
                if gate != host.gates.get(one.agent) and self._ours(one.agent):
                    told[gate_channel(host.name)].append(encode_gate(one.agent, gate != 0, gate))
        if told:
            await self.sender.bus.publish(told)

    def _limited(self, host: Host) -> Iterable[Candidate]:
        """The agents that are given a limit or should be: few of very many."""
        if host.draining:
            return host.agents.values()
        few = {*host.gates, *self.directory.kept}
        return [host.agents[agent] for agent in few if agent in host.agents]

    # Forgetting ---------------------------------------------------------------------------------

    async def _forget(self) -> None:
        """Clear away the tasks of hosts that are gone for good; others have got them since."""
        while self.directory.forgotten:
            name = self.directory.forgotten[-1]
            if self._ours(name):
                await self.sender.bus.forget(pushed_key(name))
            self.directory.forgotten.pop()


def _gate(one: Candidate) -> int | None:
    """How many tasks at once an agent may get: none, one at a time on trial, None: all it can."""
    if one.status != "active" or one.circuit == OPEN:
        return 0
    return 1 if one.circuit == HALF_OPEN else None
