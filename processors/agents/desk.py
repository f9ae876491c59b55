"""Where tasks come in and answers go out: what a host has in hand.

A task that comes twice is done once: it joins the one in hand, or gets its answer again. A task
that the engine withdrew, or that another host took over, is dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from processors.agents import answers
from processors.agents.agent import Pool, Role
from processors.agents.answers import NeedInput, TaskError
from processors.agents.envelopes import Envelopes
from processors.agents.letters import encode_letter
from processors.agents.outbox import Memory, Outbox
from processors.agents.placing import Placing
from processors.agents.runner import Runner, TimedOut
from processors.agents.wire import Assignment, decode_assignment, encode_assignment
from processors.agents.work import Counts, Key, Work
from streams.codec import Poison
from streams.partition import DEAD_LETTERS, tasks_key

logger = structlog.get_logger(__name__)

CLEAN_UP_S = 1.0  # what a cancelled handler may take
DELIVERIES_MAX = 10  # so many hosts did not live to answer it: then it is what kills them
WITHDRAWN_MAX = 10_000  # tasks that are skipped when they come later


class Desk:
    """The tasks in hand of one host."""

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        pools: Iterable[Pool] = (),
        envelopes: Envelopes | None = None,
    ) -> None:
        self._envelopes = envelopes or Envelopes(None, ())
        self.counts = Counts()
        self.in_hand: dict[str, Work] = {}
        self.refreshed = 0.0
        """When all that was in hand was certain last to be this host's."""
        self.placing = Placing(pools, self._hand_back)
        self._name = name
        self._outbox = outbox
        self._memory = Memory()
        self._withdrawn: OrderedDict[str, None] = OrderedDict()
        self._runner = Runner(
            working=self._say_working,
            ended=self._done,
            freed=self.placing.freed,
            opened=self._envelopes.opened,
        )
        self.placing.begin = self._runner.begin

    def take(
        self,
        role: Role,
        entry: bytes,
        raw: bytes | None,
        times: int = 1,
        since: float = 0.0,
        again: bool = False,
    ) -> None:
        """Do the task of an entry, now or when there is room.

        `times` says how often Redis has handed it out, `since` when it was this host's for sure,
        `again` that it is this host's own, read once more.
        """
        if self.placing.closed:  # it stays pending
            return
        if raw is None:
            self.counts.vanished += 1
            self._outbox.settle(role.stream, entry, since)
            return
        try:
            assignment = decode_assignment(raw)
        except Poison as poison:
            self._refuse(role, entry, raw, str(poison), since)
            return
        message_id, key = assignment.message_id, (role.stream, entry)
        delivery = assignment.delivery + times
        if work := self.in_hand.get(message_id):
            self._join(work, key, times, delivery, again)
        elif given := self._memory.get(message_id):
            self._repeat(assignment, given, key, delivery, since, again)
        elif message_id in self._withdrawn:
            self.counts.withdrawn += 1
            self._outbox.settle(role.stream, entry, since)
        else:
            work = Work(assignment, message_id, role, {key: times}, delivery, since)
            self.in_hand[message_id] = work
            if times > DELIVERIES_MAX:
                self._poisoned(work, raw)
            else:
                self.placing.place(work)

    def _join(self, work: Work, key: Key, times: int, delivery: int, again: bool) -> None:
        """What is in hand came once more, perhaps from somebody who had taken it over."""
        known = key in work.entries
        if known and again:
            return
        work.entries[key] = times
        work.delivery = max(work.delivery, delivery)
        if not known:
            self.counts.repeated += 1

    def _repeat(
        self,
        assignment: Assignment,
        given: tuple[bytes, int],
        key: Key,
        delivery: int,
        since: float,
        again: bool,
    ) -> None:
        """The answer that was given; as another command where the first may count no more."""
        self.counts.repeated += 1
        said, before = given
        if delivery > before and (not again or assignment.delivery >= before):
            said = answers.delivered_again(said, delivery)
            self._memory.put(assignment.message_id, said, delivery)
        self._outbox.answer(assignment.reply_to, said, *key, since)

    def _refuse(self, role: Role, entry: bytes, raw: bytes, reason: str, since: float) -> None:
        """What is no task becomes a dead letter."""
        self.counts.refused += 1
        stream = role.stream.decode()
        logger.warning("task_refused", stream=stream, reason=reason, bytes=len(raw))
        letter = encode_letter(role.stream, entry, reason, raw)
        self._outbox.answer(DEAD_LETTERS, letter, role.stream, entry, since)

    def _poisoned(self, work: Work, raw: bytes) -> None:
        """What was delivered so often kills whoever takes it: nobody else shall."""
        self.counts.poisoned += 1
        (stream, entry), times = next(iter(work.entries.items()))
        reason = f"POISON: It was delivered {times} times and never answered."
        logger.warning("task_poisoned", task=work.message_id, deliveries=times)
        self._outbox.send(DEAD_LETTERS, encode_letter(stream, entry, reason, raw))
        work.agent_id = f"@{self._name}"
        self._fail(work, TaskError(reason, retryable=False))

    def _say_working(self, work: Work) -> None:
        said = answers.started(work.assignment, work.agent_id, work.delivery)
        if said is not None:
            self._outbox.send(work.assignment.reply_to, said)

    def _done(self, work: Work, output: Any, error: BaseException | None) -> None:
        """What a handler said, or how it failed."""
        if isinstance(error, NeedInput):
            output, error = error, None
        if error is not None:
            self._fail(work, error)
            return
        whose = (work.assignment, work.agent_id)
        try:
            sealer = self._envelopes.sealer(work.assignment)
            if type(output) is NeedInput:
                said = answers.needs_input(
                    *whose, output.prompt, work.started_at, work.delivery, sealer
                )
                self.counts.asked += 1
            else:
                said = answers.completed(*whose, output, work.started_at, work.delivery, sealer)
                self.counts.completed += 1
        except TaskError as unsayable:
            self._fail(work, unsayable)
        else:
            self._answer(work, said)

    def _fail(self, work: Work, error: BaseException) -> None:
        self.counts.failed += 1
        if type(error) is TimedOut:
            self.counts.timed_out += 1
        try:
            sealer = self._envelopes.sealer(work.assignment)
        except TaskError as unable:
            sealer, error = None, unable  # what the agent said has nobody to seal it
        said = answers.failed(
            work.assignment, work.agent_id, error, work.started_at, work.delivery, sealer
        )
        self._answer(work, said)

    def _answer(self, work: Work, said: bytes) -> None:
        self._memory.put(work.message_id, said, work.delivery)
        self._leave(work, work.assignment.reply_to, said)

    def _leave(self, work: Work, stream: str | None = None, said: bytes = b"") -> None:
        """It is in hand no longer, and off its stream when `said` is sent."""
        work.answered = True
        del self.in_hand[work.message_id]
        since = work.since if work.since > self.refreshed else self.refreshed
        for key in work.entries:
            if stream is None:
                self._outbox.settle(*key, since)
            else:
                self._outbox.answer(stream, said, *key, since)
                stream = None

    def _hand_back(self, work: Work) -> None:
        """Others may do it at once, with a higher delivery than anybody has heard of."""
        self.counts.handed_back += 1
        said = replace(work.assignment, agent=None, delivery=work.delivery)
        self._leave(work, tasks_key(said.tenant, said.role), encode_assignment(said))

    def withdraw(self, message_id: str) -> None:
        """Nobody wants the answer: stop it where it runs, and skip it when it comes."""
        self._withdrawn[message_id] = None
        if len(self._withdrawn) > WITHDRAWN_MAX:
            self._withdrawn.popitem(last=False)
        if work := self.in_hand.get(message_id):
            self.counts.withdrawn += 1
            self._leave(work)
            self._stop(work)

    def lose(self, work: Work, key: Key) -> None:
        """An entry is not this host's any more; a task without any is dropped."""
        if work.answered or work.entries.pop(key, None) is None or work.entries:
            return
        self.counts.lost += 1
        logger.warning("task_taken_over", task=work.message_id, agent=work.agent_id)
        self._leave(work)
        self._stop(work)

    def _stop(self, work: Work) -> None:
        """End what runs; what waits is passed over."""
        if work.task is not None:
            work.task.cancel()
        else:
            self.placing.dropped()

    async def close(self, grace_s: float, sure_s: float) -> None:
        """Let what runs finish for so long; what is surely this host's goes back to others then.

        What does not end when it is cancelled is left pending.
        """
        self.placing.closed = True
        if self._runner.running:
            await asyncio.wait(self._runner.running, timeout=grace_s)
        self._runner.close()
        left: Sequence[Work] = list(self.in_hand.values())
        for work in left:
            work.answered = True
            if work.task is not None:
                work.task.cancel()
        if self._runner.running:
            await asyncio.wait(self._runner.running, timeout=CLEAN_UP_S)
        surely = asyncio.get_running_loop().time() - sure_s
        for work in left:
            ended = work.task is None or work.task.done()
            if ended and max(work.since, self.refreshed) > surely:
                self._hand_back(work)
        self.in_hand.clear()
