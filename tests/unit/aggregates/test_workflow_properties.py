"""A workflow under whatever may be said to it: revisions count up, and nothing is written twice."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aggregates.decider import fold
from aggregates.problem import Refused
from aggregates.workflow import (
    WORKFLOW,
    ArchiveWorkflow,
    CreateWorkflow,
    ReviseWorkflow,
    Workflow,
    WorkflowArchived,
    WorkflowCreated,
    WorkflowRevised,
)
from tests.flows import document
from tests.spec import NOW, ROOT

GOOD = [document({"a": []}), document({"a": [], "b": ["a"]}), document({"a": []}, name="x")]
WRONG = [document({"a": ["a"]}), document({}), {"name": "x"}, {}]
DOCUMENTS = st.sampled_from([*GOOD, *GOOD, *WRONG])


class Workflows(RuleBasedStateMachine):
    """Says whatever comes to mind, and keeps the documents that were accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Workflow(ROOT)
        self.written: list[Any] = []
        self.archived = False
        self.stored: list[tuple[type[Any], bytes]] = []

    @rule(made=DOCUMENTS, as_text=st.booleans())
    def create(self, made: Any, as_text: bool) -> None:
        events = self.say(written(CreateWorkflow, made, as_text))
        if events is not None and not self.written:
            assert [type(event) for event in events] == [WorkflowCreated]
            self.written.append(made)
        elif events is not None:
            assert events == []
            assert self.written == [made]
        else:
            assert made in WRONG or self.written not in ([], [made])

    @rule(made=DOCUMENTS, as_text=st.booleans())
    def revise(self, made: Any, as_text: bool) -> None:
        events = self.say(written(ReviseWorkflow, made, as_text))
        if events is None:
            assert made in WRONG or not self.written or self.archived
        elif self.written[-1] == made:
            assert events == []
        else:
            assert [type(event) for event in events] == [WorkflowRevised]
            self.written.append(made)

    @rule(seldom=st.integers(0, 5))
    def archive(self, seldom: int) -> None:
        if seldom == 0:
            events = self.say(ArchiveWorkflow("old"))
            if not self.written:
                assert events is None
            else:
                assert events == ([] if self.archived else [WorkflowArchived("old")])
            self.archived = bool(self.written)

    @precondition(lambda self: self.written)
    @rule(made=st.sampled_from(GOOD))
    def create_again(self, made: Any) -> None:
        """F30: with the first words it changes nothing, with others it is refused."""
        events = self.say(CreateWorkflow(made))
        assert events == ([] if self.written == [made] else None)

    def say(self, command: Any) -> list[Any] | None:
        """The events that follow, folded; None where it was refused."""
        try:
            events = WORKFLOW.decide(self.state, command, NOW)
        except Refused:
            return None
        self.stored += [(type(event), orjson.dumps(event)) for event in events]
        self.state = fold(WORKFLOW, ROOT, events, self.state)
        assert WORKFLOW.decide(self.state, command, NOW) == []
        return events

    @invariant()
    def the_state_is_the_fold_of_what_is_stored(self) -> None:
        """I13."""
        folded = fold(WORKFLOW, ROOT, [kind(**orjson.loads(raw)) for kind, raw in self.stored])
        assert self.state == folded == WORKFLOW.load(ROOT, WORKFLOW.dump(self.state), None)
        assert self.state.revision == len(self.written)
        assert self.state.archived == self.archived


def written(kind: type[Any], made: Any, as_text: bool) -> Any:
    return kind(source=orjson.dumps(made).decode()) if as_text else kind(made)


Workflows.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestWorkflows = Workflows.TestCase
