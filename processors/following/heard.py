"""One event as the followers hear it: what they filter by, and its bytes as they were stored."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from processors.payloads import withheld

BEGINNINGS = frozenset({"ExecutionStarted", "ExecutionRetried"})
"""The events of an execution that name its workflow."""


@dataclass(slots=True, eq=False)
class Heard:
    """An event; `workflow` is None where it has to be looked up, and "" where there is none."""

    partition: int
    position: int
    type: str
    kind: str
    root: str
    tenant: str
    agent: str | None
    workflow: str | None
    raw: bytes
    _withheld: str | None = None

    @property
    def text(self) -> str:
        """The event as CloudEvents JSON: the stored bytes, which are UTF-8."""
        return self.raw.decode()

    @property
    def withheld(self) -> str:
        """The same for who may not read payloads; made once for all of them."""
        if self._withheld is None:
            self._withheld = withheld(self.raw).decode()
        return self._withheld


def hear(raw: bytes) -> Heard:
    """The event in bytes that were checked when they were written."""
    envelope = orjson.loads(raw)
    kind, _, root = envelope["subject"].partition("/")
    data, said = envelope["data"], envelope["type"]
    agent = root if kind == "agent" else data.get("agent")
    workflow: str | None = ""
    if kind == "workflow":
        workflow = root
    elif kind == "execution":
        workflow = data["workflow_id"] if said in BEGINNINGS else None
    return Heard(
        envelope["partition"],
        envelope["position"],
        said,
        kind,
        root,
        envelope["tenant"],
        agent,
        workflow,
        raw,
    )
