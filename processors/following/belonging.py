"""Which workflow an execution belongs to: said when it begins, else looked up, and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from processors.following.heard import Heard
from projections.executions import EXECUTIONS
from streams.partition import partition_of

REMEMBERED_MAX = 100_000  # executions; about 20 MB

Fetch = Callable[..., Awaitable[list[Any]]]
"""The rows of a statement with its arguments."""

WORKFLOWS_OF = """
SELECT execution_id, workflow_id FROM executions WHERE execution_id = ANY($1::text[])
UNION ALL
SELECT substr(e.subject, 11), e.message->'data'->>'workflow_id'
FROM unnest($2::int[]) AS s(partition)
LEFT JOIN cursors AS c ON c.consumer = $3 AND c.partition = s.partition
JOIN events AS e ON e.partition = s.partition AND e.position > coalesce(c.position, 0)
WHERE e.type = 'ExecutionStarted' AND substr(e.subject, 11) = ANY($1::text[])
"""
"""The read model, and what it does not have yet: one statement, so one moment."""


class Belonging:
    """Execution -> workflow, for the executions that were heard of last."""

    def __init__(self, fetch: Fetch, partitions: Callable[[], int]) -> None:
        self._fetch = fetch
        self._partitions = partitions
        self._known: OrderedDict[str, str] = OrderedDict()

    def settle(self, event: Heard) -> bool:
        """Give an event its workflow; False where that has to be learned first."""
        if event.kind != "execution":
            return True
        if event.workflow:
            self._remember(event.root, event.workflow)
        elif event.root in self._known:
            self._known.move_to_end(event.root)
            event.workflow = self._known[event.root]
        return event.workflow is not None

    async def learn(self, events: Iterable[Heard]) -> None:
        """Look up the executions that are not known; one that never began belongs nowhere."""
        unknown = {e.root: "" for e in events if e.kind == "execution" and e.workflow is None}
        wanted = [root for root in unknown if root not in self._known]
        if not wanted:
            return
        count = self._partitions()
        places = {partition_of(root, count) for root in wanted}
        rows = await self._fetch(WORKFLOWS_OF, wanted, list(places), EXECUTIONS.consumer)
        found = {row[0]: row[1] for row in rows}
        for root in wanted:
            self._remember(root, found.get(root, ""))

    def _remember(self, execution: str, workflow: str) -> None:
        self._known[execution] = workflow
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
