"""Random workflows, small, with everything that changes what happens to an execution of one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from aggregates.decider import Blueprint
from tests.flows import flow

TASKS_MAX = 8
SIGNALS = ("go", "approved")


@st.composite
def flows(draw: st.DrawFn, undoable: bool | None = None) -> Blueprint:
    """Tasks that depend on some of those before them, with everything that changes their order."""
    count = draw(st.sampled_from([4, 1, 2, 3, 5, 6, 7, TASKS_MAX]))
    if undoable is None:
        undoable = draw(st.booleans())
    signals = draw(st.sampled_from([(), (), (), SIGNALS]))
    tasks: dict[str, Any] = {}
    for n in range(count):
        before = list(tasks)
        tasks[f"t{n}"] = {
            "depends_on": draw(st.lists(st.sampled_from(before), max_size=2)) if before else [],
            "priority": draw(st.integers(-1, 1)),
            "parallel": draw(st.sampled_from([None, None, True, False])),
            "retry_policy": {
                "max_attempts": draw(st.sampled_from([1, 2, 3, 3, 4])),
                "initial_backoff_seconds": draw(st.integers(0, 5)),
                "non_retryable_errors": ["Fatal"],
            },
            "wait_for": draw(st.sampled_from([None, None, *signals])),
            "compensation_action": draw(st.sampled_from(["undo", "undo", None]))
            if undoable
            else None,
        }
    return flow(
        tasks,
        limit=draw(st.sampled_from([3, 2, 1, 4, TASKS_MAX])),
        all_alone=draw(st.sampled_from([False] * 5 + [True])),
        compensation=draw(st.sampled_from(["automatic", "automatic", "manual"])),
    )
