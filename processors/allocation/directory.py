"""Which agents are there: one process's picture of all hosts, refreshed about once a second.

A host lives while its beat changes, judged on our own monotonic clock: nothing that another machine
calls the time is looked at (F27). While Redis does not answer, nobody grows silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import structlog

from processors.allocation.candidate import CLOSED, Candidate
from processors.allocation.cards import Word, read_cards, read_word
from processors.allocation.states import State, States
from streams.bus import Bus, BusUnavailable
from streams.log import LogUnavailable
from streams.partition import HOSTS, HOSTS_CARDS

SILENT_S = 3.0  # after some missed beats a host gets nothing new
LOST_S = 10.0  # then what it was given goes to others; a restart is quicker
STALE_S = 5.0  # a picture that is older is not chosen from
CARDS_S = 10.0  # cards are read again, even if no host seems to have begun anew
SILENT_BEATS, LOST_BEATS = 2.5, 5.0  # at least so many, where a host shows itself less often
JUMP_BEATS = 10  # a beat that leaps is of another life of its host
HOSTS_MAX = 10_000
FORGET_S = 600.0  # a lost host is not remembered for longer

logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Host:
    """One host: its newest word, and when that differed from the one before."""

    name: str
    beat: int = 0
    heard_at: float = 0.0
    alive: bool = False
    """Its beat was seen to change, and not too long ago."""
    lost: bool = False
    there: bool = True
    """It has an entry in Redis: it did not stop in order."""
    gates: dict[str, int] = field(default_factory=dict)
    """What it was told to give to some agents, at most at once."""
    agents: dict[str, Candidate] = field(default_factory=dict)
    cards: int | None = None
    """A digest of what the agents were read from."""
    draining: bool = False
    judged: tuple[object, ...] = ()
    """What all of its agents were judged by, last time."""

    @property
    def grounds(self) -> tuple[object, ...]:
        """What is true of all of its agents at once; while it stays, so do the conclusions."""
        return self.alive, self.lost, self.draining, self.cards


class Directory:
    """All hosts and their agents, by id, and by tenant and role.

    Who was there at the first look is believed to live when its beat has changed; who appears
    later, at once. A look costs by what has changed and by who is busy, not by how many there are.
    """

    def __init__(self, bus: Bus, states: States, clock: Callable[[], float]) -> None:
        self.hosts: dict[str, Host] = {}
        self.agents: dict[str, Candidate] = {}
        self.kept: dict[str, State] = {}
        self.busy: set[Candidate] = set()
        """Who has tasks or had some lately; whoever gives one adds to it."""
        self.forgotten: list[str] = []
        """Hosts that are gone for good, for whoever clears away after them."""
        self.silent_s, self.lost_s = SILENT_S, LOST_S
        self._serving: dict[tuple[str, str], list[Candidate]] = {}
        self._bus = bus
        self._states = states
        self._kept_before: dict[str, State] = {}
        self._indexed: list[tuple[object, ...]] = []
        self.clock = clock
        self._refreshed_at = float("-inf")
        self._cards_at = float("-inf")
        self._blind = True

    def serving(self, tenant: str, role: str) -> list[Candidate]:
        """The agents of a role; none where the picture is too old to be chosen from."""
        return self._serving.get((tenant, role), []) if self.fresh else []

    @property
    def fresh(self) -> bool:
        """Whether the picture is young enough to draw conclusions from."""
        return self.clock() - self._refreshed_at <= STALE_S

    def hosts_of(self, tenant: str, role: str) -> list[str]:
        """The hosts, living or not, that have an agent of a role."""
        agents = self._serving.get((tenant, role), ())
        return list(dict.fromkeys(one.host for one in agents))

    def circuit(self, agent: str) -> str:
        """The state of an agent's circuit."""
        known = self.kept.get(agent)
        return CLOSED if known is None else known.circuit

    async def refresh(self) -> None:
        """Look at Redis and at the read model; raises BusUnavailable."""
        try:
            raw = await self._bus.hash(HOSTS)
        except BusUnavailable:
            self._blind = True
            raise
        now = self.clock()
        said = {name.decode(errors="replace"): read_word(word) for name, word in raw.items()}
        words = {name: word for name, word in islice(said.items(), HOSTS_MAX) if word is not None}
        if self._hear(words, now) or now - self._cards_at >= CARDS_S:
            await self._read_cards()
            self._cards_at = now
        try:
            self.kept = await self._states.kept_from_work()
        except LogUnavailable as error:
            logger.warning("agents_states_wait", error=str(error))
        self._judge_all(words)
        self._index()
        self._refreshed_at = now

    def _hear(self, words: dict[str, Word], now: float) -> bool:
        """Take in the beats; true where cards have to be read."""
        fresh = False
        for name, word in words.items():
            host = self.hosts.get(name)
            if host is None:
                host = self.hosts[name] = Host(name, word.beat, now, alive=not self._blind)
                fresh = True
            elif host.beat != word.beat:
                fresh |= not 0 < word.beat - host.beat < JUMP_BEATS or not host.agents
                host.beat, host.heard_at, host.alive = word.beat, now, True
        for name, host in list(self.hosts.items()):
            said = words.get(name)
            every_s = said.every_s if said is not None else 0.0
            if self._blind:  # nothing could be heard, so nobody was silent
                host.heard_at = now
            quiet_s = now - host.heard_at
            host.there = said is not None
            host.alive &= host.there and quiet_s < max(self.silent_s, SILENT_BEATS * every_s)
            host.lost = quiet_s >= max(self.lost_s, LOST_BEATS * every_s)
            if quiet_s >= FORGET_S and not host.there:
                del self.hosts[name]
                self.forgotten.append(name)
        self._blind = False
        return fresh

    async def _read_cards(self) -> None:
        raw = await self._bus.hash(HOSTS_CARDS)
        for name, host in self.hosts.items():
            said = raw.get(name.encode(), b"")
            if host.cards == (digest := hash(said)) or (cards := read_cards(name, said)) is None:
                continue  # parsing those of 10,000 agents takes 0.1 s
            host.cards = digest
            for agent, card in cards.items():
                if (known := host.agents.get(agent)) is not None:
                    known.read_again(card)
                    cards[agent] = known
            host.agents = cards

    def _judge_all(self, words: dict[str, Word]) -> None:
        """Bring what is known of agents up to date, where something can be different."""
        before, kept = self._kept_before, self.kept
        changed = [a for a in before.keys() | kept.keys() if before.get(a) != kept.get(a)]
        self._kept_before = kept
        busy, self.busy = self.busy, set()
        for name, host in self.hosts.items():
            word = words.get(name)
            host.gates = word.gates if word is not None else {}
            host.draining = word is not None and word.draining
            running = word.running if word is not None else {}
            if host.judged != host.grounds:
                host.judged = host.grounds
                found = set(host.agents.values())
            else:
                found = {host.agents[a] for a in changed if a in host.agents}
                found.update(host.agents[a] for a in running if a in host.agents)
            found.update(one for one in busy if host.agents.get(one.agent) is one)
            for one in found:
                self._judge(one, host, running.get(one.agent, 0))

    def _judge(self, one: Candidate, host: Host, running: int) -> None:
        known = self.kept.get(one.agent)
        if known is None:
            one.status, one.circuit, one.reason = "active", CLOSED, ""
        else:
            one.status, one.circuit, one.reason = known.status, known.circuit, known.reason
        if host.draining and one.status == "active":
            one.status = "draining"
        one.silent, one.lost = not host.alive, host.lost
        one.others = max(0, running - max(one.own, one.peak))
        one.peak = one.own
        one.judge()
        if one.own or one.others:
            self.busy.add(one)

    def _index(self) -> None:
        shown: list[tuple[object, ...]] = [(h, h.alive, h.cards) for h in self.hosts.values()]
        if shown == self._indexed:
            return
        self._indexed = shown
        self.agents.clear()
        self._serving.clear()
        for host in sorted(self.hosts.values(), key=lambda one: one.alive):  # the living last
            self.agents.update(host.agents)
        for _, one in sorted(self.agents.items()):
            for role in one.roles:
                self._serving.setdefault((one.tenant, role), []).append(one)
