"""Workflow revisions as plans, kept in memory within a bound, since they never change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from aggregates.decider import Blueprint, Decider, Reference
from aggregates.definition import Definition
from aggregates.plan import plan
from streams.log import Log

TASKS_MAX = 500_000  # in all kept plans together: about 1 kB each


class Blueprints:
    """A bounded cache over the log's definitions, the least recently used leaving first."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._kept: OrderedDict[Reference, Blueprint] = OrderedDict()
        self._tasks = 0

    async def find(
        self, wanted: Iterable[Reference], fresh: bool = False
    ) -> dict[Reference, Blueprint]:
        """The revisions that exist; `fresh` also asks which is newest and what is archived."""
        wanted = set(wanted)
        exact = {reference: reference for reference in wanted}
        archived: dict[Reference, bool] = {}
        if fresh and wanted:
            exact = {}
            for row in await self.log.definitions(list(wanted), bodies=False):
                found = Reference(row.workflow_id, row.revision)
                archived[found] = row.archived
                for reference in wanted & {found, Reference(row.workflow_id, 0)}:
                    if reference.revision or not _newer(exact.get(reference), found):
                        exact[reference] = found
        missing = {found for found in exact.values() if found not in self._kept}
        if missing:
            for row in await self.log.definitions(list(missing)):
                self._keep(
                    Blueprint(
                        row.workflow_id,
                        row.revision,
                        row.digest,
                        row.tenant,
                        row.archived,
                        plan(Definition.from_bytes(row.body)),
                    )
                )
        answer = {}
        for reference, found in exact.items():
            if blueprint := self._kept.get(found):
                self._kept.move_to_end(found)
                if found in archived:
                    blueprint = blueprint._replace(archived=archived[found])
                answer[reference] = blueprint
        self._shrink()
        return answer

    def _keep(self, blueprint: Blueprint) -> None:
        reference = Reference(blueprint.workflow_id, blueprint.revision)
        if reference not in self._kept:  # two may have asked for it at once
            self._kept[reference] = blueprint
            self._tasks += len(blueprint.plan.ids)

    def _shrink(self) -> None:
        while self._tasks > TASKS_MAX and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._tasks -= len(dropped.plan.ids)


def _newer(known: Reference | None, found: Reference) -> bool:
    return known is not None and known.revision > found.revision


def attach(decider: Decider[Any], thing: Any, found: dict[Reference, Blueprint]) -> None:
    """Give a command or an event the blueprint that it refers to."""
    reference = decider.reference(thing)
    if reference is not None:
        thing._blueprint = found.get(reference)
