"""Workflow revisions as plans, kept in memory within a bound, since they never change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from aggregates.decider import Blueprint, Decider, Reference
from aggregates.definition import Definition
from aggregates.plan import plan
from streams.log import DefinitionRow, Log

TASKS_MAX = 500_000  # in all kept plans together: about 1 kB each
BODY_BYTES_MAX = 100_000
"""A larger definition is planned in a thread, so that leases and timers go on: 10,000 tasks take
36 ms."""


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
        # Others may drop what they find old while we wait, so what we answer with is held here.
        here = {found: self._kept[found] for found in exact.values() if found in self._kept}
        if missing := set(exact.values()) - here.keys():
            for row in await self.log.definitions(list(missing)):
                large = len(row.body) > BODY_BYTES_MAX
                planned = await asyncio.to_thread(_planned, row) if large else _planned(row)
                here[self._keep(planned)] = planned
        answer = {}
        for reference, found in exact.items():
            if blueprint := here.get(found):
                if found in self._kept:
                    self._kept.move_to_end(found)
                if found in archived:
                    blueprint = blueprint._replace(archived=archived[found])
                answer[reference] = blueprint
        self._shrink()
        return answer

    def _keep(self, blueprint: Blueprint) -> Reference:
        reference = Reference(blueprint.workflow_id, blueprint.revision)
        if reference not in self._kept:  # two may have asked for it at once
            self._kept[reference] = blueprint
            self._tasks += len(blueprint.plan.ids)
        return reference

    def _shrink(self) -> None:
        while self._tasks > TASKS_MAX and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._tasks -= len(dropped.plan.ids)


def _planned(row: DefinitionRow) -> Blueprint:
    planned = plan(Definition.from_bytes(row.body))
    return Blueprint(row.workflow_id, row.revision, row.digest, row.tenant, row.archived, planned)


def _newer(known: Reference | None, found: Reference) -> bool:
    return known is not None and known.revision > found.revision


def attach(decider: Decider[Any], thing: Any, found: dict[Reference, Blueprint]) -> None:
    """Give a command or an event the blueprint that it refers to."""
    reference = decider.reference(thing)
    if reference is not None:
        thing._blueprint = found.get(reference)
