"""Creating workflows, starting an execution of each, and waiting for the ends; no printing here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from processors.cli.files import Source
from processors.history import History

if TYPE_CHECKING:
    from processors.client import Client

AT_ONCE = 64  # submissions under way: the processor commits them in groups
POLL_S = 0.05  # an execution's end is noticed within about so long
ENDS = {
    "ExecutionCompleted": "completed",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}


@dataclass(slots=True)
class Submitted:
    """What became of one definition."""

    label: str
    workflow_id: str | None = None
    execution_id: str | None = None
    partition: int | None = None
    position: int | None = None
    status: str = "refused"
    reason: str | None = None
    problem: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        """As it is printed with --json."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None}


async def submit_all(
    client: Client,
    sources: Sequence[Source],
    given: Any,
    timeout_s: float,
    done: Callable[[Submitted], None] = lambda one: None,
    deadline_s: float | None = None,
) -> list[Submitted]:
    """Create and start them all; a refusal is noted and stops no other."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(source: Source) -> Submitted:
        async with slots:
            submitted = await _submit(client, source, given, timeout_s, deadline_s)
            done(submitted)
            return submitted

    return await asyncio.gather(*(one(source) for source in sources))


async def _submit(
    client: Client, source: Source, given: Any, timeout_s: float, deadline_s: float | None
) -> Submitted:
    from processors.client import Rejected
    from processors.commands import create_workflow, start_execution

    done = Submitted(source.label)
    try:
        create = create_workflow(source=source.text, format=source.format)
        await client.call(create, timeout_s)
        done.workflow_id = create.root
        start = start_execution(create.root, input=given, timeout_seconds=deadline_s)
        outcome = await client.call(start, timeout_s)
    except Rejected as refusal:
        done.problem, done.reason = refusal.problem, str(refusal)
        return done
    done.execution_id, done.status = start.root, "executing"
    done.partition, done.position = outcome.partition, outcome.first
    return done


async def await_ends(
    client: Client,
    submitted: Sequence[Submitted],
    progress: Callable[[int, int], None] = lambda ended, of: None,
) -> None:
    """Wait until every started execution has ended, as the log has it; notes how each did.

    The log, not a read model: this needs no projector.
    """
    from streams.codec import decode_event

    open_ = {f"execution/{s.execution_id}": s for s in submitted if s.status == "executing"}
    of = len(open_)
    after: dict[int, int] = {}
    for one in open_.values():
        assert one.partition is not None  # it has started
        assert one.position is not None
        after[one.partition] = min(one.position, after.get(one.partition, one.position))
    history = History(client.log, after, types=list(ENDS))
    while open_:
        async for page in history.pages():
            for row in page:
                event = decode_event(row.message)
                if found := open_.pop(event.subject, None):
                    found.status = ENDS[event.type]
                    found.reason = event.data.get("reason")
        progress(of - len(open_), of)
        await asyncio.sleep(POLL_S)
